"""libdeflate and libzstd, as far as `writer` and `unpack` use them."""

cdef extern from "libdeflate.h" nogil:
    cdef struct libdeflate_compressor:
        pass
    libdeflate_compressor *libdeflate_alloc_compressor(int)
    void libdeflate_free_compressor(libdeflate_compressor *)
    size_t libdeflate_gzip_compress(libdeflate_compressor *, const void *, size_t, void *, size_t)
    size_t libdeflate_gzip_compress_bound(libdeflate_compressor *, size_t)

cdef extern from "zstd.h" nogil:
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_inBuffer:
        const void *src
        size_t size
        size_t pos
    ctypedef struct ZSTD_outBuffer:
        void *dst
        size_t size
        size_t pos
    ctypedef enum ZSTD_cParameter:
        ZSTD_c_compressionLevel
        ZSTD_c_checksumFlag
    ctypedef enum ZSTD_EndDirective:
        ZSTD_e_continue
        ZSTD_e_end
    ZSTD_CCtx *ZSTD_createCCtx()
    size_t ZSTD_freeCCtx(ZSTD_CCtx *)
    size_t ZSTD_CCtx_setParameter(ZSTD_CCtx *, ZSTD_cParameter, int)
    size_t ZSTD_compress2(ZSTD_CCtx *, void *, size_t, const void *, size_t)
    size_t ZSTD_compressStream2(ZSTD_CCtx *, ZSTD_outBuffer *, ZSTD_inBuffer *, ZSTD_EndDirective)
    size_t ZSTD_compressBound(size_t)
    unsigned int ZSTD_isError(size_t)
