package rpc

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// silent answers a call when its time is over, in its own words or not at all.
type silent struct {
	choirv1.UnimplementedEnrolmentServer
	says error
}

func (s silent) Enrol(ctx context.Context, _ *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
	if s.says == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, s.says
}

// Whichever end notices that a deadline has passed, the caller reads for how long nobody answered.
func TestPatience(t *testing.T) {
	const within = 15 * time.Second
	for name, c := range map[string]struct {
		says, dial error
		code       codes.Code
		want       string
	}{
		"silence":       {nil, nil, codes.DeadlineExceeded, "no answer within 15s"},
		"own words":     {status.Error(codes.DeadlineExceeded, "nothing came for 2s"), nil, codes.DeadlineExceeded, "nothing came for 2s"},
		"another code":  {status.Error(codes.NotFound, "context deadline exceeded"), nil, codes.NotFound, "context deadline exceeded"},
		"no connection": {nil, errors.New("the cable is out"), codes.DeadlineExceeded, "the cable is out"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wire, server := bufconn.Listen(1<<16), grpc.NewServer()
				choirv1.RegisterEnrolmentServer(server, silent{says: c.says})
				go func() { _ = server.Serve(wire) }()
				defer server.Stop()
				conn, err := grpc.NewClient("passthrough:///c1", append(Client(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
					grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
						if c.dial != nil {
							return nil, c.dial
						}
						return wire.Dial()
					}))...)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				_, err = choirv1.NewEnrolmentClient(conn).Enrol(ctx, &choirv1.EnrolRequest{})
				if s := status.Convert(err); s.Code() != c.code || !strings.Contains(s.Message(), c.want) {
					t.Errorf("%v, want %v and %q", err, c.code, c.want)
				}
			})
		})
	}
	for _, words := range []string{"context deadline exceeded", "stream terminated by RST_STREAM with error code: CANCEL", "context deadline exceeded while waiting for connections to become ready"} {
		if err := unanswered(status.New(codes.DeadlineExceeded, words), 14_999_700*time.Microsecond); status.Convert(err).Message() != "no answer within 15s" {
			t.Errorf("%s: %v", words, err)
		}
	}
}
