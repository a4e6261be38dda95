package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// connectTimeout is how long one address may take to answer before the next is asked.
const connectTimeout = 5 * time.Second

// operators is a client of whichever coordinator answers.
func (f *federation) operators() choirv1.OperatorsClient {
	return choirv1.NewOperatorsClient(&anyCoordinator{f})
}

// anyCoordinator makes a connection for each call, to the first of the context's addresses that answers. What a
// coordinator answers is final, but for Unavailable.
type anyCoordinator struct{ f *federation }

func (a *anyCoordinator) dial(address string) (*grpc.ClientConn, error) {
	config := seal.ClientTLS(a.f.credential, a.f.root, time.Now, "h2", nil)
	dialer := &net.Dialer{Timeout: connectTimeout}
	return grpc.NewClient("passthrough:///"+address, append(rpc.Client(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))...)
}

// each calls f on one address after the other until one answers.
func (a *anyCoordinator) each(ctx context.Context, f func(conn *grpc.ClientConn) error) error {
	var said []string
	for _, address := range a.f.Addresses {
		conn, err := a.dial(address)
		if err == nil {
			err = f(conn)
		}
		if err == nil || ctx.Err() != nil || status.Code(err) != codes.Unavailable {
			return err
		}
		said = append(said, fmt.Sprintf("%s: %s", address, strings.TrimPrefix(status.Convert(err).Message(), "connection error: desc = ")))
	}
	return status.Error(codes.Unavailable, strings.Join(said, "; "))
}

// Invoke makes one call.
func (a *anyCoordinator) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return a.each(ctx, func(conn *grpc.ClientConn) error {
		defer conn.Close()
		return conn.Invoke(ctx, method, args, reply, opts...)
	})
}

// NewStream opens a stream; its connection ends with it.
func (a *anyCoordinator) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (s grpc.ClientStream, err error) {
	err = a.each(ctx, func(conn *grpc.ClientConn) error {
		s, err = conn.NewStream(ctx, desc, method, append(opts, grpc.OnFinish(func(error) { go conn.Close() }))...)
		if err != nil {
			_ = conn.Close()
		}
		return err
	})
	return s, err
}

// said turns what a coordinator answered into words, with the cure where it is known.
func said(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := errors.New(s.Message())
	switch s.Code() {
	case codes.Unavailable:
		if strings.Contains(s.Message(), seal.ErrForeign.Error()) {
			return &hinted{text, "the addresses in context.yaml lead to another federation than its root; take the context that belongs to them"}
		}
		if closedOnUs(s.Message()) {
			return &hinted{fmt.Errorf("a coordinator closed the connection: %w", text), "was this credential revoked, or has it expired? choir credential list shows it"}
		}
		return &hinted{fmt.Errorf("no coordinator answers: %w", text), "does one run, and a majority of them? The addresses stand in context.yaml"}
	case codes.Unauthenticated:
		return &hinted{text, "the credential is not accepted; who has the root key makes a new one: choir credential create"}
	case codes.PermissionDenied:
		return &hinted{text, "this needs another role; choir credential list shows yours"}
	case codes.Unimplemented:
		return &hinted{text, "that coordinator runs another version of choir; choir version shows this one's"}
	case codes.Canceled:
		return errors.New("interrupted")
	}
	return text
}

// closedOnUs reports whether a coordinator answered and then closed the connection, as it does when it refuses a
// certificate: in TLS 1.3 the caller has finished the handshake by then.
func closedOnUs(message string) bool {
	return slices.ContainsFunc([]string{"bad certificate", "broken pipe", "connection reset", "EOF"}, func(sign string) bool {
		return strings.Contains(message, sign)
	})
}

// readBlob collects a stream of chunks, and tells how far it is.
func readBlob(recv func() (*choirv1.BlobChunk, error), progress func(done, total uint64)) ([]byte, error) {
	var out []byte
	var total uint64
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			if uint64(len(out)) != total {
				return nil, fmt.Errorf("%d of %d bytes came; try again", len(out), total)
			}
			return out, nil
		}
		if err != nil {
			return nil, said(err)
		}
		total = max(total, m.Total)
		out = append(out, m.Data...)
		if progress != nil {
			progress(uint64(len(out)), total)
		}
	}
}
