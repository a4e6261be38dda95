package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"choir.example/coordinator"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
	"choir.example/simulate/recount"
)

// DemoConfig says what the demo shows.
type DemoConfig struct {
	Dir          string // everything is kept below it
	Report       string // file of the HTML page
	Coordinators int
	Nodes        int
	Rounds       uint64
	Seed         uint64
	Kill         bool // kill the leader in the middle of the middle round
	Log          *slog.Logger
	Progress     func(DemoProgress)
}

// DemoProgress is where the demo stands.
type DemoProgress struct {
	Stage string  // what is being done, in a few words
	Round uint64  // training rounds closed
	Of    uint64  // training rounds in all
	AUC   float64 // of the model as last measured: a round measures what it starts from
	After uint64  // training rounds that made that model; 0: untrained, or not measured yet
}

// Demo runs the whole system on built-in data: founds a federation, trains, kills the leader, publishes, predicts,
// recounts, audits. The error is about the demo itself; what it found wrong stands in the result's Problems.
func Demo(ctx context.Context, cfg DemoConfig) (*DemoResult, error) {
	d, err := newDemo(cfg)
	if err != nil {
		return nil, err
	}
	return d.run(ctx)
}

func (d *demo) run(ctx context.Context) (_ *DemoResult, err error) {
	start := time.Now()
	d.progress("founding the federation: certificates, tokens, encrypted stores")
	if d.f, err = Start(ctx, d.federation()); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.f.Close()) }()
	for _, step := range []func(context.Context) error{d.train, d.measure, d.audit, d.recount, d.predict, d.baselines} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	d.judge()
	d.result.Seconds = time.Since(start).Seconds()
	return d.result, d.write()
}

// demo is a demo under way.
type demo struct {
	cfg    DemoConfig
	schema *data.Schema
	parts  []data.Parts
	spec   *choirv1.JobSpec
	net    *Network
	kill   *LeaderKill // nil without
	f      *Federation
	result *DemoResult
	bundle []byte
	tally  recount.Tally
	warned *lastWarning

	mu      sync.Mutex // guards the fields below
	held    []recount.Held
	sent    map[uint64]int64 // bytes that all nodes have sent by the end of each round
	adopted chan string      // names of nodes that serve the release
	done    DemoProgress

	received chan struct{} // has room for one: there is another receipt
}

func newDemo(cfg DemoConfig) (*demo, error) {
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		return nil, err
	}
	d := &demo{
		cfg: cfg, schema: schema, net: NewNetwork(), sent: map[uint64]int64{}, adopted: make(chan string, cfg.Nodes),
		received: make(chan struct{}, 1),
		spec:     PurchaseJob(schema, cfg.Nodes, cfg.Rounds, cfg.Seed),
		warned:   &lastWarning{},
		result:   &DemoResult{Seed: cfg.Seed, Coordinators: cfg.Coordinators, Nodes: cfg.Nodes, Report: cfg.Report},
	}
	d.cfg.Log = slog.New(&warningHandler{next: cfg.Log.Handler(), last: d.warned})
	for _, p := range Partition(rows, regions, cfg.Nodes, cfg.Seed) {
		d.parts = append(d.parts, data.Split(schema, p, cfg.Seed))
	}
	if cfg.Kill {
		d.kill = NewLeaderKill(d.spec.Name, max(1, cfg.Rounds/2), d.net, time.Now)
	}
	return d, nil
}

func (d *demo) federation() FederationConfig {
	cfg := FederationConfig{
		Dir: d.cfg.Dir, Cluster: "demo", Coordinators: d.cfg.Coordinators, Schema: d.schema, Parts: d.parts, Serve: true,
		Log: d.cfg.Log, Network: d.net, Node: d.observe,
	}
	if d.kill != nil {
		cfg.Coordinator = d.kill.Observer()
	}
	cfg.Coordinator.RoundClosed = d.closed
	return cfg
}

// closed notes what the nodes have sent by the end of a round, when the first coordinator tells that it is over.
func (d *demo) closed(_ string, e coordinator.RoundEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.sent[e.Round]; known {
		return
	}
	for i := range d.cfg.Nodes {
		d.sent[e.Round] += d.net.Sent(NodeName(i))
	}
}

// observe keeps what a node holds: receipts, and the payloads they are for.
func (d *demo) observe(name string) node.Observer {
	return node.Observer{
		Sending: func(job string, round uint64, attempt uint32, _ []byte) {
			if d.kill != nil {
				d.kill.Sending(name, job, round, attempt)
			}
		},
		Receipt: func(r audit.Receipt, payload []byte) {
			d.hold(recount.Held{Receipt: r, Payload: payload})
		},
		Released: func(string, uint64, string) {
			select {
			case d.adopted <- name:
			default: // enough nodes serve it
			}
		},
	}
}

func (d *demo) hold(h recount.Held) {
	d.mu.Lock()
	d.held = append(d.held, h)
	d.mu.Unlock()
	select {
	case d.received <- struct{}{}:
	default: // whoever waits will look anyway
	}
}

func (d *demo) progress(stage string) {
	d.mu.Lock()
	d.done.Stage, d.done.Of = stage, d.cfg.Rounds
	p := d.done
	d.mu.Unlock()
	if d.cfg.Progress != nil {
		d.cfg.Progress(p)
	}
}

// train submits the job and follows it to its end.
func (d *demo) train(ctx context.Context) error {
	if d.kill != nil {
		d.kill.Attach(d.f)
	}
	if _, err := d.f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: d.spec}); err != nil {
		return fmt.Errorf("submit job: %w", err)
	}
	stuck := time.AfterFunc(patience, d.stuck)
	defer stuck.Stop()
	s, err := d.f.WaitJob(ctx, d.spec.Name, func(s *choirv1.JobStatus) {
		stuck.Reset(patience)
		d.follow(s)
	})
	if err != nil {
		return err
	}
	if s.State != "finished" {
		return fmt.Errorf("job %s %s: %s", s.Name, s.State, s.Reason)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range s.Rounds {
		if r.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN || r.State != "closed" {
			continue
		}
		d.point(r.Round-1, r.Evaluation) // a round measures the model that it starts from
		d.result.Sent = append(d.result.Sent, SentPoint{Round: r.Round, Updates: int(r.Accepted), Bytes: d.sent[r.Round] - d.sent[r.Round-1]})
		d.result.Model.Digest = fmt.Sprintf("%x", r.Model)
	}
	d.result.Rounds = s.Round
	d.result.Model.Name, d.result.Model.Version = d.spec.Model, s.Release
	return nil
}

// point adds what the federation published of the model after so many training rounds, if it did.
func (d *demo) point(after uint64, e *choirv1.EvaluationSum) {
	if e.GetExamples() == 0 {
		return
	}
	m := model.Evaluation{Examples: e.Examples, Loss: e.Loss}
	d.result.Curve = append(d.result.Curve, CurvePoint{after, Validated{float64(e.AucMillionths) / 1e6, m.MeanLoss()}})
}

// patience is how long nothing may happen before the demo says what it last heard.
const patience = 10 * time.Second

// stuck says what may be in the way.
func (d *demo) stuck() {
	stage := fmt.Sprintf("nothing has happened for %v", patience)
	if w := d.warned.get(); w != "" {
		stage += ", last warning: " + w
	}
	d.progress(stage)
}

// follow reports each closed round.
func (d *demo) follow(s *choirv1.JobStatus) {
	stage := "gathering statistics"
	d.mu.Lock()
	if n := len(s.Rounds); n > 0 {
		switch r := s.Rounds[n-1]; {
		case r.Kind == choirv1.RoundKind_ROUND_KIND_EVALUATE:
			stage = "evaluating the variants"
		case s.Round == d.cfg.Rounds:
			stage = "distilling and quantising"
		case s.Round > 0 || r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN:
			stage = "training"
		}
	}
	if d.kill != nil && d.kill.Victim() != "" {
		if _, _, over := d.kill.Failover(); !over {
			stage = "leader " + d.kill.Victim() + " was killed; electing another"
		}
	}
	again := d.done.Stage == stage && d.done.Round == s.Round
	d.done.Round = s.Round
	for _, r := range s.Rounds {
		if r.Evaluation.GetExamples() > 0 {
			d.done.AUC, d.done.After = float64(r.Evaluation.AucMillionths)/1e6, r.Round-1
		}
	}
	d.mu.Unlock()
	if !again {
		d.progress(stage)
	}
}

// baselines trains each region alone and all data in one place.
func (d *demo) baselines(ctx context.Context) error {
	d.progress("training the baselines")
	local, central, err := Baselines(ctx, d.spec, d.schema, d.parts)
	if err != nil {
		return err
	}
	d.result.Metrics.LocalMean, d.result.Metrics.Central = local.Held, central.Held
	d.result.Local, d.result.Central = local.Validation, central.Validation
	return nil
}
