package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Operator is a client with an operator's certificate. A call goes to a living coordinator; one that finds nobody, or a
// coordinator that dies meanwhile, fails with code Unavailable.
func (f *Federation) Operator() choirv1.OperatorsClient {
	return choirv1.NewOperatorsClient(&anyCoordinator{f})
}

// anyCoordinator opens a connection a call: to the first coordinator that is alive.
type anyCoordinator struct{ f *Federation }

func (a *anyCoordinator) connect() (*grpc.ClientConn, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	for _, v := range a.f.voters {
		if a.f.members[v.Name] == nil {
			continue
		}
		config := seal.ClientTLS(a.f.human, a.f.root, a.f.cfg.Now, "h2", nil)
		return grpc.NewClient("passthrough:///"+v.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
			grpc.WithContextDialer(a.f.cfg.Network.Dialer("operator")), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	}
	return nil, status.Error(codes.Unavailable, "no coordinator is alive")
}

// Invoke makes one call.
func (a *anyCoordinator) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := a.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream whose connection ends with ctx or the stream.
func (a *anyCoordinator) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := a.connect()
	if err != nil {
		return nil, err
	}
	opts = append(opts, grpc.OnFinish(func(error) { go conn.Close() }))
	s, err := conn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		_ = conn.Close()
	}
	return s, err
}

// leaderPatience is how long coordinators may take to elect a leader.
const leaderPatience = 30 * time.Second

// patiently repeats a call that no coordinator may answer yet, until one does, or a coordinator or node has failed.
func (f *Federation) patiently(ctx context.Context, call func(ctx context.Context) error, yet ...codes.Code) error {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	defer context.AfterFunc(f.sound, cancel)()
	for {
		err := call(ctx)
		if failed := context.Cause(f.sound); failed != nil {
			return failed
		}
		if err == nil || ctx.Err() != nil || status.Code(err) != codes.Unavailable && !slices.Contains(yet, status.Code(err)) {
			return err
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// WaitJob follows a job until it has ended, through deaths of coordinators, and returns its last status. each, if not
// nil, is called with every status seen.
func (f *Federation) WaitJob(ctx context.Context, name string, each func(*choirv1.JobStatus)) (*choirv1.JobStatus, error) {
	var last *choirv1.JobStatus
	for {
		stream, err := f.Operator().WatchJob(ctx, &choirv1.GetJobRequest{Name: name})
		for err == nil {
			var s *choirv1.JobStatus
			if s, err = stream.Recv(); err == nil {
				last = s
				if each != nil {
					each(s)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && last != nil:
			return last, nil
		case ctx.Err() != nil:
			return last, fmt.Errorf("wait for job %s: %w", name, ctx.Err())
		case status.Code(err) != codes.Unavailable && status.Code(err) != codes.NotFound:
			return last, fmt.Errorf("wait for job %s: %w", name, err)
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Blob fetches a model or variant as operator.
func (f *Federation) Blob(ctx context.Context, id []byte) ([]byte, error) {
	stream, err := f.Operator().GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return nil, err
	}
	return readStream(stream.Recv)
}

// Bundle exports the audit log as operator.
func (f *Federation) Bundle(ctx context.Context) ([]byte, error) {
	stream, err := f.Operator().GetBundle(ctx, &choirv1.BundleRequest{})
	if err != nil {
		return nil, err
	}
	return readStream(stream.Recv)
}

func readStream(recv func() (*choirv1.BlobChunk, error)) ([]byte, error) {
	var out []byte
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read blob: %w", err)
		}
		out = append(out, m.Data...)
	}
}

// Leader is the name of the coordinator that leads, as a living one sees it; empty if it sees none.
func (f *Federation) Leader(ctx context.Context) string {
	reply, err := f.Operator().GetStatus(ctx, &choirv1.StatusRequest{})
	if err != nil {
		return ""
	}
	return reply.Leader
}
