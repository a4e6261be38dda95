package coordinator

import (
	"context"
	"slices"

	"choir.example/internal/rpc"
	choirv1 "choir.example/proto/choir/v1"
)

// uploadTo sends an envelope in chunks and waits for the outcome, as a node does.
func uploadTo(ctx context.Context, n choirv1.NodesClient, h *choirv1.UploadHeader, envelope []byte) (*choirv1.Outcome, error) {
	stream, err := n.Upload(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: h}}) != nil {
			return
		}
		for chunk := range slices.Chunk(envelope, rpc.ChunkBytes) {
			if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: chunk}}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if out := m.GetOutcome(); out != nil {
			return out, nil
		}
	}
}
