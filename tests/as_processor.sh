#!/bin/sh
# Runs a command as on a processor with fewer instructions: tests/as_processor.sh avx2|oldest make test
#
# Each library asks the processor itself and has a variable of its own: PyTorch's kernels, oneDNN, MKL (PyTorch's matrix
# products), OpenBLAS (numpy, scipy, scikit-learn), numpy's own loops, OpenCV and the IPP inside it, faiss.
set -e
case $1 in
avx2)
  export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell \
    NPY_DISABLE_CPU_FEATURES=X86_V4,AVX512_ICL,AVX512_SPR OPENCV_CPU_DISABLE=AVX512-SKX OPENCV_IPP=avx2 FAISS_SIMD_LEVEL=AVX2
  ;;
oldest)
  export ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem \
    NPY_DISABLE_CPU_FEATURES=X86_V3,X86_V4,AVX512_ICL,AVX512_SPR OPENCV_CPU_DISABLE=AVX,FP16,AVX2,AVX512-SKX \
    OPENCV_IPP=sse42 FAISS_SIMD_LEVEL=NONE
  ;;
*)
  echo "usage: $0 avx2|oldest COMMAND [ARGUMENT …]" >&2
  exit 2
  ;;
esac
shift
exec "$@"
