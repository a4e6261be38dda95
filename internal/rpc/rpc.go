// Package rpc holds what the two ends of a gRPC connection have to agree on to move models and updates fast: the size
// of a chunk, and windows and buffers that fit it.
package rpc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// ChunkBytes is how much of an envelope or blob one message of a stream carries.
const ChunkBytes = 256 << 10

const (
	streamWindow = 1 << 20 // what a sender may be ahead of a reader: four chunks
	connWindow   = 2 << 20
	readBytes    = 32 << 10 // of a connection, which may be idle for long: TLS gives no more than 16 KiB at once
	writeBytes   = 128 << 10
)

// Server is what a server is made with.
func Server() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow), experimental.BufferPool(newBuffers()),
		grpc.ReadBufferSize(readBytes), grpc.WriteBufferSize(writeBytes), grpc.ForceServerCodecV2(newCodec()),
	}
}

// Client is what a client is made with.
func Client() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow), experimental.WithBufferPool(newBuffers()),
		grpc.WithReadBufferSize(readBytes), grpc.WithWriteBufferSize(writeBytes),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec())),
	}
}
