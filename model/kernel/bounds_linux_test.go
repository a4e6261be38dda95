package kernel

import (
	"syscall"
	"testing"
	"unsafe"
)

// atEnd returns n elements of size bytes behind which no memory is: a read or write there ends the process.
func atEnd[T any](t *testing.T, n int) []T {
	t.Helper()
	var zero T
	size, page := n*int(unsafe.Sizeof(zero)), syscall.Getpagesize()
	whole := (size + page - 1) / page * page
	mem, err := syscall.Mmap(-1, 0, whole+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skipf("no memory to protect: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mem) })
	if err := syscall.Mprotect(mem[whole:], syscall.PROT_NONE); err != nil {
		t.Skipf("memory cannot be protected: %v", err)
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[whole-size])), n)
}

// TestNothingIsReadBeyond runs kernels on slices that end where memory ends.
func TestNothingIsReadBeyond(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		for n := range edge + 1 {
			x, y, d := atEnd[float32](t, n), atEnd[float32](t, n), atEnd[float32](t, n)
			for _, k := range elementwise {
				k.run(d, x, y)
			}
			Dot(x, y)
			Sum(x)
			MaxAbs(x)
			Max(x)
			Softmax(d, x)
			SoftmaxCrossEntropy(d, []float32{0}, min(n, 1), n, 1)
			Adaptive(d, x, y, d, AdaptiveStep{})
			q, words, bytes := atEnd[int32](t, n), atEnd[uint32](t, n), atEnd[int8](t, n)
			ToFixed(q, x, 1, 100)
			ToFixedRandomly(q, x, words, 1, 100)
			FromFixed(d, q, 1)
			AddUint32(words, words)
			QuantiseRow(bytes, x)
			AxpyInt8(d, 1, bytes)
			DotInt8(bytes, bytes)
			Rescale(d, q, x, y, 1, Identity)
		}
		for channels := 1; channels <= edge; channels++ {
			p := Pool{Columns: 3, Channels: channels, Kernel: 2, Step: 2 * channels, Width: 7 * channels}
			image, windows := 13*channels, 3*channels
			MaxPool(atEnd[float32](t, windows), atEnd[float32](t, image), p)
			RoutePool(atEnd[float32](t, image), atEnd[float32](t, windows), atEnd[float32](t, image), atEnd[float32](t, windows), p, channels%2 == 0)
		}
		for n := 1; n <= edge; n++ {
			Move(Grid{atEnd[float32](t, 3*n), n, n}, Grid{atEnd[float32](t, 3*n), n, n}, 3, 1, n, n%2 == 0)
		}
		for _, s := range [][3]int{{1, 1, 1}, {1, 37, 9}, {5, 16, 7}, {14, 67, 5}, {17, 33, 20}, {30, 5, 300}, {65, 66, 67}, {3, 4, 5}} {
			m, n, k := s[0], s[1], s[2]
			a, b, d := atEnd[float32](t, m*k), atEnd[float32](t, k*n), Matrix{atEnd[float32](t, m*n), n}
			NN(d, Matrix{a, k}, Matrix{b, n}, m, n, k, Epilogue{Bias: atEnd[float32](t, n)})
			TN(d, Matrix{a, m}, Matrix{b, n}, m, n, k, 1, 1)
			NT(d, Matrix{a, k}, Matrix{b, k}, m, n, k, 1, atEnd[float32](t, NTScratch))
			Products(Repeat{2, 0, 1}, d, Strided{atEnd[float32](t, m+2*k+1), 1, 1, k, k}, Matrix{atEnd[float32](t, 2*k*n), n}, m, n, 2*k, 1, Epilogue{})
			Transpose(d, Matrix{atEnd[float32](t, m*n), m}, n, m)
			AddColumnSums(atEnd[float32](t, n), b, k, n, 1)
			packed := atEnd[int32](t, PackedInt8(n, k))
			PackInt8(packed, make([]int8, n*k), n, k)
			ProductInt8(atEnd[int32](t, m*n), atEnd[int8](t, m*Int8Stride(k)), packed, m, n, k)
		}
	})
}
