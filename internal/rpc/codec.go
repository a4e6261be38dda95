package rpc

import (
	"encoding/binary"
	"fmt"
	"io"

	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours stands on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// codec is gRPC's codec of protobuf messages, on the wire and in its results. The bytes of a chunk, though, go out of the
// slice in which they lie, which the sender must not change afterwards, and are copied once when they come.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal writes the chunk first and what else the message says after it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	var field protowire.Number
	var chunk, rest []byte
	var err error
	switch m := v.(type) {
	case *choirv1.UploadRequest:
		field, chunk = 2, m.GetChunk()
	case *choirv1.BlobChunk:
		field, chunk = 1, m.GetData()
		rest, err = proto.Marshal(&choirv1.BlobChunk{Total: m.GetTotal(), Id: m.GetId()})
	}
	if err != nil {
		return nil, fmt.Errorf("marshal chunk: %w", err)
	}
	if len(chunk) == 0 {
		return c.CodecV2.Marshal(v)
	}
	head := protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.BytesType), uint64(len(chunk)))
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(chunk), mem.SliceBuffer(rest)}, nil
}

// Unmarshal takes a chunk that stands first in its message out of the buffers in which it came. Any other message, well
// formed or not, is read by gRPC's codec.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *choirv1.UploadRequest:
		if chunk, rest := firstBytes(data, 2); chunk != nil {
			m.Body = &choirv1.UploadRequest_Chunk{Chunk: chunk}
			return merge(m, rest)
		}
	case *choirv1.BlobChunk:
		if chunk, rest := firstBytes(data, 1); chunk != nil {
			m.Reset()
			m.Data = chunk
			return merge(m, rest)
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// merge adds to a message the fields that stand after its chunk.
func merge(m proto.Message, rest []byte) error {
	return proto.UnmarshalOptions{Merge: true}.Unmarshal(rest, m)
}

// firstBytes are the bytes of the field, when a message starts with it, and what comes after; nil when it does not, or
// is malformed.
func firstBytes(data mem.BufferSlice, field protowire.Number) (chunk, rest []byte) {
	r := data.Reader()
	defer r.Close()
	tag := protowire.AppendTag(nil, field, protowire.BytesType)
	for _, want := range tag {
		if b, err := r.ReadByte(); err != nil || b != want {
			return nil, nil
		}
	}
	size, err := binary.ReadUvarint(r)
	if err != nil || size > uint64(r.Remaining()) {
		return nil, nil
	}
	chunk, rest = make([]byte, size), make([]byte, r.Remaining()-int(size))
	for _, part := range [][]byte{chunk, rest} {
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, nil
		}
	}
	return chunk, rest
}
