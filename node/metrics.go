package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what a node counts, in the names and units that Prometheus expects.
type metrics struct {
	registry    *prometheus.Registry
	rounds      *prometheus.CounterVec // tasks taken up, by kind and what became of them
	updates     *prometheus.CounterVec // by outcome
	sentBytes   prometheus.Counter     // sealed envelopes
	predictions *prometheus.CounterVec // rows, by model
	latency     prometheus.Histogram   // of a prediction request, in the handler
	refused     prometheus.Counter     // releases that were not taken
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "choir_node_tasks_total", Help: "Tasks that coordinators gave this node, by kind and result.",
		}, []string{"kind", "result"}),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "choir_node_updates_total", Help: "Updates of this node: sent, counted by the coordinators, refused by them.",
		}, []string{"outcome"}),
		sentBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "choir_node_sent_bytes_total", Help: "Bytes of sealed updates that left this machine.",
		}),
		predictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "choir_node_predictions_total", Help: "Rows predicted, by model.",
		}, []string{"model"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "choir_node_prediction_seconds", Help: "Time to answer a prediction request, without the network.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1},
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "choir_node_releases_refused_total", Help: "Releases that this node could not take.",
		}),
	}
	m.registry.MustRegister(m.rounds, m.updates, m.sentBytes, m.predictions, m.latency, m.refused)
	return m
}

// predicted counts a request for n rows.
func (m *metrics) predicted(model string, n int, took time.Duration) {
	m.predictions.WithLabelValues(model).Add(float64(n))
	m.latency.Observe(took.Seconds())
}

// task counts a task by what became of it.
func (m *metrics) task(kind choirv1.RoundKind, err error) {
	result := "done"
	if err != nil {
		result = "not_done"
	}
	m.rounds.WithLabelValues(kindName(kind), result).Inc()
}

// sending counts an update that leaves.
func (m *metrics) sending(envelope int) {
	m.updates.WithLabelValues("sent").Inc()
	m.sentBytes.Add(float64(envelope))
}

// answered counts an answer about an update.
func (m *metrics) answered(a *answer) {
	if a.receipt != nil {
		m.updates.WithLabelValues(OutcomeCounted).Inc()
	} else {
		m.updates.WithLabelValues(OutcomeRefused).Inc()
	}
}

// observe registers what is read when somebody asks.
func (m *metrics) observe(n *Node) {
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("choir_node_certificate_expiry_timestamp_seconds", "When this node's certificate ends, in seconds since 1970.", nil,
		func() float64 { return float64(n.client.leaf().NotAfter.Unix()) })
	gauge("choir_node_root_expiry_timestamp_seconds", "When the federation's root ends, in seconds since 1970.", nil,
		func() float64 { return float64(n.id.trusted().NotAfter.Unix()) })
	gauge("choir_node_updates_waiting", "Updates that are kept until there is an answer about them.", nil, func() float64 {
		names, _ := n.spool.names()
		return float64(len(names))
	})
	for _, part := range Parts() {
		gauge("choir_node_rows", "Rows in the store, by part.", prometheus.Labels{"part": string(part)}, func() float64 {
			count, _ := n.store.Count(part)
			return float64(count)
		})
	}
}

// health is the listener for those who watch over the node.
type health struct {
	listener net.Listener
	http     *http.Server
}

func (n *Node) newHealth(address string) (*health, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health and metrics on %s (is the port in use?): %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, map[string]bool{"ok": true}) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := n.ready(); err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		reply(w, http.StatusOK, map[string]bool{"ready": true})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			refuse(w, http.StatusForbidden, fmt.Errorf("host %q: only loopback names are answered", r.Host))
			return
		}
		mux.ServeHTTP(w, r)
	})
	return &health{l, &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}}, nil
}

func (h *health) start(log *slog.Logger) (stop func()) {
	return background(log, "health and metrics", h.http, func() error { return h.http.Serve(h.listener) })
}

// ready is why the node could not do its work now: nil if it can.
func (n *Node) ready() error {
	if now := n.deps.Now(); now.After(n.client.leaf().NotAfter) {
		return clockError(fmt.Errorf("the certificate ended at %s: %w", n.client.leaf().NotAfter.UTC().Format(time.DateTime), seal.ErrExpired), now)
	}
	if n.store.broken.Load() {
		return errors.New("the store is damaged; " + damageCure)
	}
	if err := n.store.room(0); err != nil {
		return err
	}
	return n.client.contact.check()
}
