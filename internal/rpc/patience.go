package rpc

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Patience has a call that nobody answered before its deadline say for how long. gRPC says so in several ways, by which
// end noticed first: as its context's error, or as a stream that was cancelled. The code stays codes.DeadlineExceeded. What
// the other end itself says with that code is left as it is, as is why no connection came about.
func Patience() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		deadline, bounded := ctx.Deadline()
		patience := time.Until(deadline)
		err := call(ctx, method, req, reply, conn, opts...)
		if s, _ := status.FromError(err); bounded && s.Code() == codes.DeadlineExceeded {
			return unanswered(s, patience)
		}
		return err
	})
}

// unanswered puts a waiting time in the place of gRPC's own words.
func unanswered(s *status.Status, waited time.Duration) error {
	why, unconnected := strings.CutPrefix(s.Message(), "latest balancer error: ")
	silent := strings.HasPrefix(why, context.DeadlineExceeded.Error()) || strings.HasPrefix(why, "stream terminated by RST_STREAM")
	within := max(waited.Round(100*time.Millisecond), 0)
	switch {
	case unconnected:
		return status.Errorf(codes.DeadlineExceeded, "no connection within %v: %s", within, why)
	case silent:
		return status.Errorf(codes.DeadlineExceeded, "no answer within %v", within)
	}
	return s.Err()
}
