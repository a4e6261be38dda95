package rpc

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// buffers is a pool for what gRPC reads from a connection. Its own pools clear a buffer at each use, which costs more
// than the copy that follows; here a buffer keeps what was in it until it is written over, which gRPC always does whole.
// One pool belongs to one server or one connection.
type buffers []*sizedBuffers

type sizedBuffers struct {
	size int
	free sync.Pool // of *[]byte with this capacity
}

// newBuffers has sizes for small messages, for frames, for read and write buffers, and for a chunk with its framing.
func newBuffers() buffers {
	var b buffers
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 32 << 10, ChunkBytes + 4<<10} {
		b = append(b, &sizedBuffers{size: size})
	}
	return b
}

// Get is a buffer of the length; longer ones than a chunk are made new.
func (b buffers) Get(length int) *[]byte {
	for _, s := range b {
		if length > s.size {
			continue
		}
		if p, ok := s.free.Get().(*[]byte); ok {
			*p = (*p)[:length]
			return p
		}
		fresh := make([]byte, length, s.size)
		return &fresh
	}
	return mem.NopBufferPool{}.Get(length)
}

// Put takes a buffer back.
func (b buffers) Put(p *[]byte) {
	for _, s := range b {
		if cap(*p) == s.size {
			s.free.Put(p)
			return
		}
	}
}
