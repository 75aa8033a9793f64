"""Members or frames in a row as one stream that stops at a bound.

The slower of the two ways of `frames`, and the one that tells what is wrong.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from _ext.codecs cimport *

cdef enum Codec:
    CODEC_GZIP = 2
    CODEC_ZSTD = 4

cdef enum Status:
    STATUS_OK = 0
    STATUS_TRUNCATED = 1
    STATUS_CORRUPT = 2
    STATUS_MISMATCH = 3
    STATUS_TRAILING = 4
    STATUS_NO_MEMORY = 5

cdef enum:
    # Bytes thrown away per step before the chunk begins.
    DISCARD = 1 << 16
    # zlib counts in 32 bits.
    ZLIB_STEP = 1 << 30
    # RFC 8878 recommends 8 MiB; the encoders in use go up to 128 MiB ("--long=27").
    WINDOW_LOG_MAX = 27

ctypedef struct PieceStream:
    int codec
    ZSTD_DCtx *zstd           # of the codec zstd
    bint zlib_ready           # of the codec gzip; zlib keeps the address of its stream, so this never moves
    z_stream zlib
    const unsigned char *source
    size_t source_size
    size_t position           # how much of it the library has
    uint64_t produced         # decompressed bytes so far
    bint frame_begins
    Status status             # the first error lasts


cdef inline bint start_codec(PieceStream *stream, int codec) noexcept:
    """Make the library's context in a zeroed `stream`. False: no memory."""
    stream.codec = codec
    if codec == CODEC_GZIP:
        memset(&stream.zlib, 0, sizeof(z_stream))
        # 15: the largest window; 16: a gzip header, nothing else.
        stream.zlib_ready = inflateInit2(&stream.zlib, 15 + 16) == Z_OK
        return stream.zlib_ready
    stream.zstd = ZSTD_createDCtx()
    if stream.zstd == NULL:
        return False
    ZSTD_DCtx_setParameter(stream.zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)
    return True


cdef inline void end_codec(PieceStream *stream) noexcept:
    """Free what `start_codec` made, as far as it came."""
    if stream.zlib_ready:
        inflateEnd(&stream.zlib)
    if stream.zstd != NULL:
        ZSTD_freeDCtx(stream.zstd)


cdef inline bint is_frame(const unsigned char *data, size_t size) noexcept nogil:
    """A zstd or skippable frame, as far as four bytes tell; less are for the library to judge.

    Keeps the decoders for the formats before zstd 1.0 out of reach, which distributions leave compiled in.
    """
    if size < 4:
        return True
    cdef uint32_t magic = data[0] | <uint32_t> data[1] << 8 | <uint32_t> data[2] << 16 | <uint32_t> data[3] << 24
    return magic == <uint32_t> 0xFD2FB528 or (magic >> 4) == 0x184D2A5


cdef inline void open_stream(PieceStream *stream, const unsigned char *source, size_t size) noexcept nogil:
    stream.source = source
    stream.source_size = size
    stream.position = 0
    stream.produced = 0
    stream.status = STATUS_OK
    if stream.codec == CODEC_GZIP:
        inflateReset(&stream.zlib)
        stream.zlib.avail_in = 0
    else:
        ZSTD_DCtx_reset(stream.zstd, ZSTD_reset_session_only)
        stream.frame_begins = True


cdef inline Status _read_gzip(PieceStream *stream, unsigned char *out, size_t size) noexcept nogil:
    cdef unsigned int step
    cdef int code
    while True:
        if stream.zlib.avail_in == 0 and stream.position < stream.source_size:
            step = <unsigned int> min(stream.source_size - stream.position, <size_t> ZLIB_STEP)
            stream.zlib.next_in = <unsigned char *> stream.source + stream.position
            stream.zlib.avail_in = step
            stream.position += step
        step = <unsigned int> min(size, <size_t> ZLIB_STEP)
        stream.zlib.next_out = out
        stream.zlib.avail_out = step
        code = inflate(&stream.zlib, Z_NO_FLUSH)
        step -= stream.zlib.avail_out
        out += step
        size -= step
        stream.produced += step
        if size == 0:
            return STATUS_OK
        if code == Z_STREAM_END or code == Z_BUF_ERROR:
            if stream.zlib.avail_in == 0 and stream.position == stream.source_size:
                return STATUS_TRUNCATED
            if code == Z_STREAM_END:
                # The next member; anything else that follows is corrupt, as for Go's reader.
                inflateReset(&stream.zlib)
        elif code == Z_MEM_ERROR:
            return STATUS_NO_MEMORY
        elif code != Z_OK:
            return STATUS_CORRUPT


cdef inline Status _read_zstd(PieceStream *stream, unsigned char *out, size_t size) noexcept nogil:
    cdef ZSTD_inBuffer source
    cdef ZSTD_outBuffer target
    cdef size_t code
    source.src = stream.source
    source.size = stream.source_size
    source.pos = stream.position
    target.dst = out
    target.size = size
    target.pos = 0
    while True:
        size = target.pos
        if stream.frame_begins and not is_frame(stream.source + source.pos, source.size - source.pos):
            return STATUS_CORRUPT
        # Stops where a frame ends (0), however much input and room there is.
        code = ZSTD_decompressStream(stream.zstd, &target, &source)
        stream.frame_begins = code == 0
        stream.produced += target.pos - size
        if target.pos == target.size:
            stream.position = source.pos
            return STATUS_OK
        if ZSTD_isError(code):
            if ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation:
                return STATUS_NO_MEMORY
            return STATUS_CORRUPT
        if target.pos == size and source.pos == source.size and source.pos == stream.position:
            return STATUS_TRUNCATED
        stream.position = source.pos


cdef inline Status read_stream(PieceStream *stream, unsigned char *out, size_t size) noexcept nogil:
    """The next `size` bytes of the stream, all of them or a lasting error."""
    if stream.status == STATUS_OK and size:
        if stream.codec == CODEC_GZIP:
            stream.status = _read_gzip(stream, out, size)
        else:
            stream.status = _read_zstd(stream, out, size)
    return stream.status


cdef inline Status skip_to(PieceStream *stream, uint64_t offset, unsigned char *scratch) noexcept nogil:
    """Throw away what comes before `offset`; the scratch buffer holds DISCARD bytes already."""
    while stream.produced < offset and stream.status == STATUS_OK:
        read_stream(stream, scratch, <size_t> min(offset - stream.produced, <uint64_t> DISCARD))
    return stream.status
