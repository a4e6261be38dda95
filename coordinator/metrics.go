package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"choir.example/coordinator/state"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what a coordinator counts, in the names and units that Prometheus expects.
type metrics struct {
	registry *prometheus.Registry
	updates  *prometheus.CounterVec // taken in here, by outcome
	bytes    prometheus.Counter     // of envelopes received
	rounds   *prometheus.CounterVec // by end, as this replica's log says
	refused  prometheus.Counter     // handshakes
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "choir_coordinator_updates_total", Help: "Updates that nodes sent to this coordinator, by outcome: committed, given_up or refused.",
		}, []string{"outcome"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "choir_coordinator_received_bytes_total", Help: "Bytes of sealed updates received from nodes.",
		}),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "choir_coordinator_rounds_total", Help: "Rounds that ended since this coordinator started, by kind and end: closed or abandoned.",
		}, []string{"kind", "end"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "choir_coordinator_handshakes_refused_total", Help: "Connections turned away at the handshake.",
		}),
	}
	m.registry.MustRegister(m.updates, m.bytes, m.rounds, m.refused)
	return m
}

// observe registers what is read when somebody asks.
func (m *metrics) observe(c *Coordinator) {
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("choir_coordinator_leader", "1 while this coordinator leads.", nil, func() float64 {
		if leader, _ := c.replica.Leader(); leader == c.cfg.Name {
			return 1
		}
		return 0
	})
	gauge("choir_coordinator_term", "Raft's term.", nil, func() float64 { return float64(c.replica.Term()) })
	of := func(name, help string, f func(*state.State) int) {
		gauge(name, help, nil, func() float64 { return float64(f(c.replica.State())) })
	}
	of("choir_coordinator_applied_index", "Index of the last entry applied.", func(s *state.State) int { return int(s.Index) })
	of("choir_coordinator_voters", "Coordinators by the replicated state.", func(s *state.State) int { return len(s.Coordinators) })
	of("choir_coordinator_nodes", "Nodes that are enrolled and not revoked.", func(s *state.State) int { return int(enrolled(s)) })
	of("choir_coordinator_records", "Records in the audit log.", func(s *state.State) int { return int(s.Log.Size()) })
	for _, name := range []string{state.JobQueued, state.JobRunning, state.JobPaused, state.JobStopped, state.JobFinished, state.JobFailed} {
		gauge("choir_coordinator_jobs", "Jobs by state.", prometheus.Labels{"state": name}, func() float64 {
			n := 0
			for _, j := range c.replica.State().Jobs {
				if j.Shown() == name {
					n++
				}
			}
			return float64(n)
		})
	}
	gauge("choir_coordinator_updates_under_way", "Updates here without an outcome yet.", nil, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.load)
	})
	gauge("choir_coordinator_root_expiry_timestamp_seconds", "When the root that certified this coordinator ends, in seconds since 1970.", nil, func() float64 {
		return float64(c.own.Load().root.NotAfter.Unix())
	})
	gauge("choir_coordinator_certificate_expiry_timestamp_seconds", "When the first of this coordinator's certificates ends, in seconds since 1970.", nil, func() float64 {
		return float64(c.own.Load().expires.Unix())
	})
}

// openHealth opens the listener for those who watch over the coordinator.
func openHealth(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health and metrics on %s (is the port in use?): %w", address, err)
	}
	return l, nil
}

// serveHealth answers on the listener until ctx ends.
func (c *Coordinator) serveHealth(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { say(w, c.ready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.metrics.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: loopbackOnly(mux), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		c.deps.Log.Error("health and metrics are not served any more", "error", err)
	}
}

// loopbackOnly answers callers that know the listener by a loopback name: no web page elsewhere can make a browser read
// it.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "only loopback names are answered", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func say(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, err.Error()+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// ready is why this coordinator cannot do its part now: nil if it can.
func (c *Coordinator) ready() error {
	s := c.replica.State()
	leader, _ := c.replica.Leader()
	doubt := c.standing.ready()
	switch _, voter := s.Coordinator(c.cfg.Name); {
	case leader == "":
		return errors.New("no leader is known: a majority of the coordinators must be running and reach each other")
	case s.Cluster == "":
		return errors.New("the log has not arrived yet")
	case !voter:
		return errors.New("this coordinator is not a voter")
	case !c.replica.votes(c.cfg.Name):
		return errors.New("this coordinator has no vote yet: it gets one when it has caught up")
	case doubt != nil:
		return doubt
	case c.deps.Now().After(c.own.Load().expires):
		return fmt.Errorf("the certificate ended at %s", c.own.Load().expires.UTC().Format(time.DateTime))
	}
	if err := c.blobs.writable(); err != nil {
		return fmt.Errorf("the disk of coordinator %s takes no models: %w", c.cfg.Name, err)
	}
	return nil
}
