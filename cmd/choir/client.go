package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
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
	config := a.f.tls("h2")
	dialer := &net.Dialer{Timeout: connectTimeout}
	return grpc.NewClient("passthrough:///"+address, append(rpc.Client(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))...)
}

// each calls f on one address after the other until one answers.
func (a *anyCoordinator) each(ctx context.Context, f func(conn *grpc.ClientConn) error) error {
	_, err := a.beyond(ctx, 0, nil, f)
	return err
}

// beyond is each from the i-th address on, after what those before it have said. It returns where it has come to.
func (a *anyCoordinator) beyond(ctx context.Context, i int, said []string, f func(conn *grpc.ClientConn) error) (int, error) {
	for ; i < len(a.f.Addresses); i++ {
		conn, err := a.dial(a.f.Addresses[i])
		if err == nil {
			err = f(conn)
		}
		if err == nil || ctx.Err() != nil || status.Code(err) != codes.Unavailable {
			return i, err
		}
		said = append(said, unavailable(a.f.Addresses[i], err))
	}
	return i, status.Error(codes.Unavailable, strings.Join(said, "; "))
}

func unavailable(address string, err error) string {
	return fmt.Sprintf("%s: %s", address, strings.TrimPrefix(status.Convert(err).Message(), "connection error: desc = "))
}

// Invoke makes one call.
func (a *anyCoordinator) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return a.each(ctx, func(conn *grpc.ClientConn) error {
		defer conn.Close()
		defer patience(a.f.talk, strings.TrimPrefix(conn.Target(), "passthrough:///"))()
		return conn.Invoke(ctx, method, args, reply, opts...)
	})
}

// patience says after two seconds, and every ten from then on, that an address is waited for, until done is called.
func patience(w io.Writer, address string) (done func()) {
	answered, said := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		for wait := meterAfter; ; wait = 10 * time.Second {
			select {
			case <-answered:
				return
			case <-time.After(wait):
				fmt.Fprintf(w, "no answer from %s yet; waiting (nothing is decided while a majority of the coordinators is away)\n", address)
			}
		}
	}()
	return func() {
		close(answered)
		<-said
	}
}

// NewStream opens a stream of answers to one question; its connection ends with it.
func (a *anyCoordinator) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s := &answers{a: a, ctx: ctx, open: func(conn *grpc.ClientConn) (grpc.ClientStream, error) {
		return conn.NewStream(ctx, desc, method, append(slices.Clone(opts), grpc.OnFinish(func(error) { go conn.Close() }))...)
	}}
	return s, s.next(0)
}

// answers is a stream that goes on to the next address as long as nothing has come.
type answers struct {
	grpc.ClientStream
	a    *anyCoordinator
	ctx  context.Context // of the stream, as grpc.ClientStream has one
	open func(conn *grpc.ClientConn) (grpc.ClientStream, error)

	at       int // among the addresses
	said     []string
	question any
	heard    bool
}

// next opens the stream at the i-th address or a later one, and asks there what was asked before.
func (s *answers) next(i int) (err error) {
	s.at, err = s.a.beyond(s.ctx, i, s.said, func(conn *grpc.ClientConn) error {
		stream, err := s.open(conn)
		if err != nil {
			_ = conn.Close()
			return err
		}
		s.ClientStream = stream
		if s.question == nil {
			return nil
		}
		if err := stream.SendMsg(s.question); err != nil && !errors.Is(err, io.EOF) { // the reason is received
			return err
		}
		return stream.CloseSend()
	})
	return err
}

// SendMsg asks.
func (s *answers) SendMsg(m any) error {
	s.question = m
	return s.ClientStream.SendMsg(m)
}

// RecvMsg receives the next answer.
func (s *answers) RecvMsg(m any) error {
	for {
		err := s.receive(m)
		if s.heard || s.ctx.Err() != nil || status.Code(err) != codes.Unavailable {
			s.heard = true
			return err
		}
		s.said = append(s.said, unavailable(s.a.f.Addresses[s.at], err))
		if err := s.next(s.at + 1); err != nil {
			return err
		}
	}
}

// receive waits for the next answer; of the first one it says that it is waited for.
func (s *answers) receive(m any) error {
	if !s.heard {
		defer patience(s.a.f.talk, s.a.f.Addresses[s.at])()
	}
	return s.ClientStream.RecvMsg(m)
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
		if answered(s.Message()) {
			return &hinted{fmt.Errorf("the coordinators cannot do that now: %w", text), "does a majority of them run, and do they reach each other? choir cluster status shows it"}
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

// answered reports whether a coordinator, and not the network, said that it is not available.
func answered(message string) bool {
	return slices.ContainsFunc(strings.Split(message, "; "), func(part string) bool { return !networkSaid.MatchString(part) })
}

// networkSaid matches what is said of an address by the network. A coordinator's own words may tell of it too, further in.
var networkSaid = regexp.MustCompile(`^(\S+: )?"?(transport: |error reading from server|dial tcp)`)

var rpcWords = regexp.MustCompile(`rpc error: code = \w+ desc = |connection error: desc = `)

// plain is an error without the words that gRPC puts around what was said.
func plain(err error) string { return rpcWords.ReplaceAllString(err.Error(), "") }

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
