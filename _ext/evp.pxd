"""libcrypto's digests, as far as kernels use them."""

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    ctypedef struct EVP_MD_CTX:
        pass
    EVP_MD *EVP_MD_fetch(void *, const char *, const char *)
    EVP_MD_CTX *EVP_MD_CTX_new()
    void EVP_MD_CTX_free(EVP_MD_CTX *)
    int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *)
    int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t)
    int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned int *)
