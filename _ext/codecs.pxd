"""libdeflate, zlib and libzstd, as far as `frames` uses them."""

cdef extern from "libdeflate.h" nogil:
    cdef struct libdeflate_decompressor:
        pass
    enum libdeflate_result:
        LIBDEFLATE_SUCCESS
    libdeflate_decompressor *libdeflate_alloc_decompressor()
    void libdeflate_free_decompressor(libdeflate_decompressor *)
    libdeflate_result libdeflate_gzip_decompress_ex(
        libdeflate_decompressor *, const void *, size_t, void *, size_t, size_t *, size_t *)

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        unsigned char *next_in
        unsigned int avail_in
        unsigned char *next_out
        unsigned int avail_out
    int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_MEM_ERROR, Z_NO_FLUSH
    int inflateInit2(z_stream *, int)
    int inflateReset(z_stream *)
    int inflate(z_stream *, int)
    int inflateEnd(z_stream *)

cdef extern from "zstd.h" nogil:
    ctypedef struct ZSTD_DCtx:
        pass
    ctypedef struct ZSTD_inBuffer:
        const void *src
        size_t size
        size_t pos
    ctypedef struct ZSTD_outBuffer:
        void *dst
        size_t size
        size_t pos
    enum ZSTD_dParameter:
        ZSTD_d_windowLogMax
    enum ZSTD_ResetDirective:
        ZSTD_reset_session_only
    const unsigned long long ZSTD_CONTENTSIZE_UNKNOWN
    const unsigned long long ZSTD_CONTENTSIZE_ERROR
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *)
    size_t ZSTD_DCtx_setParameter(ZSTD_DCtx *, ZSTD_dParameter, int)
    size_t ZSTD_DCtx_reset(ZSTD_DCtx *, ZSTD_ResetDirective)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx *, void *, size_t, const void *, size_t)
    size_t ZSTD_decompressStream(ZSTD_DCtx *, ZSTD_outBuffer *, ZSTD_inBuffer *)
    size_t ZSTD_findFrameCompressedSize(const void *, size_t)
    unsigned long long ZSTD_getFrameContentSize(const void *, size_t)
    unsigned int ZSTD_isError(size_t)

cdef extern from "zstd_errors.h" nogil:
    enum ZSTD_ErrorCode:
        ZSTD_error_memory_allocation
    ZSTD_ErrorCode ZSTD_getErrorCode(size_t)
