package rpc

import (
	"bytes"
	"math/rand/v2"
	"testing"

	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// messages are those whose chunks take the short way, with and without chunk, and one that never does.
func messages() []proto.Message {
	body := bytes.Repeat([]byte("choir"), ChunkBytes/5)
	chunk := func(b []byte) proto.Message {
		return &choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: b}}
	}
	return []proto.Message{
		chunk(body), chunk([]byte{7}), chunk([]byte{}), &choirv1.UploadRequest{},
		&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: &choirv1.UploadHeader{Size: 3, Update: []byte{1, 2}}}},
		&choirv1.BlobChunk{Data: body, Total: 1 << 40, Id: []byte("id")}, &choirv1.BlobChunk{Data: body[:100]},
		&choirv1.BlobChunk{Total: 9, Id: []byte("id")}, &choirv1.BlobChunk{},
		&choirv1.BlobRequest{Id: []byte("id")},
	}
}

// cut splits bytes into buffers at random places, as frames arrive.
func cut(b []byte, rng *rand.Rand) mem.BufferSlice {
	var s mem.BufferSlice
	for len(b) > 0 {
		n := 1 + rng.IntN(min(len(b), 1<<14))
		s = append(s, mem.SliceBuffer(b[:n]))
		b = b[n:]
	}
	return s
}

// What one codec writes the other reads, however it is cut.
func TestCodecSpeaksProtobuf(t *testing.T) {
	ours, theirs := newCodec(), encoding.GetCodecV2("proto")
	if ours.Name() != theirs.Name() {
		t.Fatalf("the codec calls itself %q", ours.Name())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, m := range messages() {
		for _, way := range []struct {
			name           string
			writer, reader encoding.CodecV2
		}{{"ours to theirs", ours, theirs}, {"theirs to ours", theirs, ours}, {"ours to ours", ours, ours}} {
			out, err := way.writer.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			got := m.ProtoReflect().New().Interface()
			if err := way.reader.Unmarshal(cut(out.Materialize(), rng), got); err != nil {
				t.Fatalf("%s, %T: %v", way.name, m, err)
			}
			if !proto.Equal(got, m) {
				t.Errorf("%s: %T came as another", way.name, m)
			}
		}
	}
}

// The chunk of a message is not copied when it goes out, and shares nothing with the buffers in which it came.
func TestChunksAreCopiedOnce(t *testing.T) {
	body := bytes.Repeat([]byte{5}, 1000)
	out, err := newCodec().Marshal(&choirv1.BlobChunk{Data: body})
	if err != nil {
		t.Fatal(err)
	}
	if got := out[1].ReadOnlyData(); &got[0] != &body[0] {
		t.Error("the chunk was copied to be sent")
	}
	wire := out.Materialize()
	got := &choirv1.BlobChunk{}
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, got); err != nil {
		t.Fatal(err)
	}
	clear(wire)
	if !bytes.Equal(got.Data, body) {
		t.Error("the chunk changed with the buffer in which it came")
	}
}

// FuzzCodec: whatever the bytes, ours reads the message that gRPC's codec reads, or both refuse.
func FuzzCodec(f *testing.F) {
	for _, m := range messages() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 200)], uint64(1))
	}
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1}, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		ours, theirs := newCodec(), encoding.GetCodecV2("proto")
		for _, pair := range [][2]proto.Message{
			{&choirv1.UploadRequest{}, &choirv1.UploadRequest{}}, {&choirv1.BlobChunk{}, &choirv1.BlobChunk{}},
		} {
			got := ours.Unmarshal(cut(b, rand.New(rand.NewPCG(seed, 0))), pair[0])
			want := theirs.Unmarshal(cut(b, rand.New(rand.NewPCG(seed, 1))), pair[1])
			if (got == nil) != (want == nil) {
				t.Fatalf("ours says %v, gRPC's %v", got, want)
			}
			if got == nil && !proto.Equal(pair[0], pair[1]) {
				t.Fatalf("%v and %v", pair[0], pair[1])
			}
		}
	})
}

// A buffer has the length asked for, and comes back for the next of its size.
func TestBuffers(t *testing.T) {
	b := newBuffers()
	for _, n := range []int{0, 1, 1 << 10, 1<<10 + 1, 16 << 10, ChunkBytes, ChunkBytes + 4<<10, ChunkBytes + 4<<10 + 1, 1 << 20} {
		p := b.Get(n)
		if len(*p) != n {
			t.Errorf("a buffer of %d bytes for %d", len(*p), n)
		}
		b.Put(p)
		if q := b.Get(n); len(*q) != n {
			t.Errorf("a used buffer of %d bytes for %d", len(*q), n)
		}
	}
}
