package coordinator

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"choir.example/coordinator/state"
	"choir.example/coordinator/web"
	choirv1 "choir.example/proto/choir/v1"
)

// consoleGrace is how long pages under way may take to end when the coordinator stops.
const consoleGrace = time.Second

// serveConsole serves the pages for people until ctx ends.
func (c *Coordinator) serveConsole(ctx context.Context) {
	server := &http.Server{
		Handler: c.console(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, TLSNextProto: noUpgrade, ErrorLog: slog.NewLogLogger(c.deps.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.wire.queues[protoHTTP]) }()
	<-ctx.Done()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), consoleGrace)
	defer cancel()
	if server.Shutdown(within) != nil {
		_ = server.Close()
	}
	<-served
}

// noUpgrade keeps the server to HTTP/1.1: what speaks HTTP/2 on this port is gRPC.
var noUpgrade = map[string]func(*http.Server, *tls.Conn, http.Handler){}

// console is the pages, for those who may see them. Who comes is looked at again with each request, because connections
// live long.
func (c *Coordinator) console() http.Handler {
	pages := web.New(c.cfg.Name, consoleSource{c}, c.deps.Log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := c.identify(*r.TLS)
		if err == nil {
			err = c.admit(id)
		}
		if err != nil {
			http.Error(w, "certificate: "+err.Error(), http.StatusUnauthorized)
			return
		}
		if !allowed(protoHTTP, id.Role) {
			http.Error(w, describe(id)+" may not see the console", http.StatusForbidden)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// consoleSource is what the pages show: the agreed state, and what this coordinator sees of the others.
type consoleSource struct{ *Coordinator }

// State is the state applied here, which a leader confirms if there is one.
func (c consoleSource) State(ctx context.Context) (s *state.State, doubt error) {
	doubt = c.confirm(ctx)
	return c.replica.State(), doubt
}

// Cluster is what operators are told by GetStatus.
func (c consoleSource) Cluster(ctx context.Context) (web.Cluster, error) {
	reply, err := operatorsService{Coordinator: c.Coordinator}.GetStatus(ctx, &choirv1.StatusRequest{Unconfirmed: true})
	if err != nil {
		return web.Cluster{}, err
	}
	out := web.Cluster{Leader: reply.Leader, Term: reply.Term, Replicas: map[string]web.Replica{}}
	for _, r := range reply.Replicas {
		out.Replicas[r.Name] = web.Replica{State: r.State, Load: r.Load, Applied: r.Applied}
	}
	return out, nil
}

// Present is which nodes some coordinator heard lately.
func (c consoleSource) Present(ctx context.Context) map[string]bool {
	return c.heard(ctx, c.replica.State())
}
