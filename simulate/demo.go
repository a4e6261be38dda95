package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

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
	AUC   float64 // of the model the last closed round started from; 0 before
}

// DemoResult is what the demo found. Its JSON form is a contract for scripts.
type DemoResult struct {
	Seed         uint64           `json:"seed"`
	Coordinators int              `json:"coordinators"`
	Nodes        int              `json:"nodes"`
	Rounds       uint64           `json:"rounds_committed"`
	Seconds      float64          `json:"seconds"`
	Model        DemoModel        `json:"model"`
	Metrics      map[string]Score `json:"metrics"`
	Variants     []DemoVariant    `json:"variants"`
	Uplink       int64            `json:"uplink_bytes_per_node_round"`
	Failover     *DemoFailover    `json:"failover"`
	Prediction   DemoPrediction   `json:"prediction"`
	Audit        DemoAudit        `json:"audit"`
	Report       string           `json:"report"`

	Curve        []CurvePoint  `json:"-"` // by round, for the page
	Released     []DemoVariant `json:"-"` // every variant, also those the contract does not name
	HTTP         Latency       `json:"-"` // of the served variant over HTTP
	HistogramGap float64       `json:"-"` // exact AUC against the AUC of the summed histogram
	Answer       string        `json:"-"` // the prediction as the node gave it
	Request      string        `json:"-"`
	Problems     []string      `json:"-"` // what is not as it must be; empty if all is well
}

// DemoModel names the released model.
type DemoModel struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

// DemoVariant is one released form of the model, measured on the pooled held-out rows and in this process on one core.
type DemoVariant struct {
	Name     string  `json:"name"`
	Bytes    int     `json:"bytes"`
	AUC      float64 `json:"auc"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Accuracy float64 `json:"-"`
}

// DemoFailover is what the death of the leader cost, and the recount of all rounds.
type DemoFailover struct {
	Round    uint64  `json:"round"`
	Seconds  float64 `json:"seconds"`
	Receipts int     `json:"receipts"`
	Counted  int     `json:"counted"`
	Lost     int     `json:"lost"`
	Twice    int     `json:"twice"`
	Victim   string  `json:"-"`
}

// DemoPrediction is a node's answer over HTTP.
type DemoPrediction struct {
	ModelVersion string  `json:"model_version"`
	Probability  float64 `json:"probability"`
}

// DemoAudit is the outcome of the offline verification.
type DemoAudit struct {
	Records  int  `json:"records"`
	Verified bool `json:"verified"`
}

// CurvePoint is one closed training round: how the model it started from did on the nodes' validation parts.
type CurvePoint struct {
	Round     uint64
	AUC, Loss float64
	Accepted  int
	Uplink    int64 // bytes of updates that nodes signed in the round
}

// Demo runs the whole system on built-in data: founds a federation, trains, kills the leader, publishes, predicts,
// recounts, audits. The error is about the demo itself; what it found wrong stands in the result's Problems.
func Demo(ctx context.Context, cfg DemoConfig) (_ *DemoResult, err error) {
	d, err := newDemo(cfg)
	if err != nil {
		return nil, err
	}
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

	mu      sync.Mutex // guards the fields below
	held    []recount.Held
	uplink  map[uint64]int64 // bytes by training round
	adopted chan string      // names of nodes that serve the release
	done    DemoProgress
}

func newDemo(cfg DemoConfig) (*demo, error) {
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		return nil, err
	}
	d := &demo{
		cfg: cfg, schema: schema, net: NewNetwork(), uplink: map[uint64]int64{}, adopted: make(chan string, cfg.Nodes),
		spec:   PurchaseJob(schema, cfg.Rounds, cfg.Seed),
		result: &DemoResult{Seed: cfg.Seed, Coordinators: cfg.Coordinators, Nodes: cfg.Nodes, Metrics: map[string]Score{}, Report: cfg.Report},
	}
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
	return cfg
}

// observe keeps what a node holds: receipts, and the payloads they are for.
func (d *demo) observe(name string) node.Observer {
	return node.Observer{
		Receipt: func(r audit.Receipt, payload []byte) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.held = append(d.held, recount.Held{Receipt: r, Payload: payload})
			d.uplink[r.Round] += int64(len(payload))
		},
		Released: func(string, uint64, string) { d.adopted <- name },
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
	s, err := d.f.WaitJob(ctx, d.spec.Name, d.follow)
	if err != nil {
		return err
	}
	if s.State != "finished" {
		return fmt.Errorf("job %s %s: %s", s.Name, s.State, s.Reason)
	}
	for _, r := range s.Rounds {
		if r.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN || r.State != "closed" {
			continue
		}
		e := model.Evaluation{Examples: r.Evaluation.GetExamples(), Loss: r.Evaluation.GetLoss()}
		d.result.Curve = append(d.result.Curve, CurvePoint{
			Round: r.Round, AUC: float64(r.Evaluation.GetAucMillionths()) / 1e6, Loss: e.MeanLoss(), Accepted: int(r.Accepted),
			Uplink: d.uplink[r.Round],
		})
		d.result.Model.Digest = fmt.Sprintf("%x", r.Model)
	}
	d.result.Rounds = s.Round
	d.result.Model.Name, d.result.Model.Version = d.spec.Model, s.Release
	return nil
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
		if a := r.Evaluation.GetAucMillionths(); a > 0 {
			d.done.AUC = float64(a) / 1e6
		}
	}
	d.mu.Unlock()
	if !again {
		d.progress(stage)
	}
}

// measure fetches each released variant and measures it on the pooled held-out rows.
func (d *demo) measure(ctx context.Context) error {
	d.progress("measuring the variants")
	rel, err := d.f.Operator().GetRelease(ctx, &choirv1.ReleaseRequest{Model: d.spec.Model})
	if err != nil {
		return fmt.Errorf("get release: %w", err)
	}
	held, _ := pool(d.parts)
	for _, v := range rel.Variants {
		if !v.Published {
			d.result.Problems = append(d.result.Problems, fmt.Sprintf("variant %s was withheld: %s", v.Name, v.Reason))
			continue
		}
		body, err := d.f.Blob(ctx, v.Blob)
		if err != nil {
			return fmt.Errorf("get variant %s: %w", v.Name, err)
		}
		m, err := model.Decode(body)
		if err != nil {
			return fmt.Errorf("variant %s: %w", v.Name, err)
		}
		score := Measure(m, held)
		lat := latency(m, held)
		found := DemoVariant{Name: v.Name, Bytes: len(body), AUC: score.AUC, Accuracy: score.Accuracy, P50: lat.P50, P99: lat.P99}
		d.result.Released = append(d.result.Released, found)
		if v.Name != "student" {
			d.result.Variants = append(d.result.Variants, found)
		}
		if v.Name == "float32" {
			d.result.Metrics["federated"] = score
			d.histogramGap(m)
		}
	}
	var bytes, updates int64
	for _, p := range d.result.Curve {
		bytes, updates = bytes+p.Uplink, updates+int64(p.Accepted)
	}
	d.result.Uplink = bytes / max(updates, 1)
	return nil
}

// histogramGap compares the AUC of summed histograms with the exact one, on the pooled validation rows, where rounds
// measure.
func (d *demo) histogramGap(m *model.Model) {
	var all []data.Row
	var sum model.Evaluation
	for _, p := range d.parts {
		all = append(all, p.Validation...)
		sum.Add(m.Evaluate(p.Validation))
	}
	gap := sum.AUC() - Measure(m, all).AUC
	d.result.HistogramGap = max(gap, -gap)
}

// audit exports the bundle and verifies it offline.
func (d *demo) audit(ctx context.Context) (err error) {
	d.progress("exporting and verifying the audit log")
	if d.bundle, err = d.f.Bundle(ctx); err != nil {
		return fmt.Errorf("export audit log: %w", err)
	}
	report := audit.Verify(d.bundle, d.f.Fingerprint(), time.Now())
	d.result.Audit = DemoAudit{Records: report.Records, Verified: report.OK}
	for _, c := range report.Checks {
		if !c.OK {
			d.result.Problems = append(d.result.Problems, "audit: "+c.Name+": "+c.Detail)
		}
	}
	dir := filepath.Join(d.cfg.Dir, "audit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep audit log: %w", err)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "run.bundle"), d.bundle, 0o600),
		os.WriteFile(filepath.Join(dir, "root.fingerprint"), []byte(d.f.Fingerprint()+"\n"), 0o600))
}

// recount adds up again what the nodes hold receipts for.
func (d *demo) recount(context.Context) error {
	b, err := audit.DecodeBundle(d.bundle)
	if err != nil {
		return err
	}
	records, err := b.Decoded()
	if err != nil {
		return err
	}
	d.mu.Lock()
	tally := recount.Recount(d.held, records)
	d.mu.Unlock()
	for _, p := range tally.Problems {
		d.result.Problems = append(d.result.Problems, "recount: "+p)
	}
	if d.kill == nil {
		return nil
	}
	round, took, ok := d.kill.Failover()
	if !ok {
		d.result.Problems = append(d.result.Problems, "the leader was not killed: the moment for it never came")
	}
	d.result.Failover = &DemoFailover{
		Round: round, Seconds: took.Seconds(), Receipts: tally.Receipts, Counted: tally.Counted, Lost: tally.Lost,
		Twice: tally.Twice, Victim: d.kill.Victim(),
	}
	return nil
}

// predict waits until a node serves the release and asks it over HTTP.
func (d *demo) predict(ctx context.Context) error {
	d.progress("asking a node for a prediction")
	var name string
	select {
	case name = <-d.adopted:
	case <-ctx.Done():
		return fmt.Errorf("wait for a node to serve the release: %w", ctx.Err())
	}
	url := "http://" + d.f.Node(name).Address() + "/v2/models/" + d.spec.Model + "/infer"
	held, _ := pool(d.parts)
	body, err := inferBody(d.schema, held[0])
	if err != nil {
		return err
	}
	answer, err := infer(ctx, url, body)
	if err != nil {
		return err
	}
	d.result.Request, d.result.Answer = string(body), string(answer)
	var reply struct {
		Version string `json:"model_version"`
		Outputs []struct {
			Data []float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil || len(reply.Outputs) != 1 || len(reply.Outputs[0].Data) != 1 {
		return fmt.Errorf("prediction is not as it should be: %s", answer)
	}
	d.result.Prediction = DemoPrediction{ModelVersion: reply.Version, Probability: reply.Outputs[0].Data[0]}
	times := make([]time.Duration, 0, 500)
	for range cap(times) {
		start := time.Now()
		if _, err := infer(ctx, url, body); err != nil {
			return err
		}
		times = append(times, time.Since(start))
	}
	d.result.HTTP = quantiles(times)
	return nil
}

// baselines trains each region alone and all data in one place.
func (d *demo) baselines(context.Context) error {
	d.progress("training the baselines")
	local, central, err := Baselines(d.spec, d.schema, d.parts)
	if err != nil {
		return err
	}
	d.result.Metrics["local_mean"], d.result.Metrics["central"] = local, central
	return nil
}

// judge adds what must not be.
func (d *demo) judge() {
	if f := d.result.Failover; f != nil && (f.Lost != 0 || f.Twice != 0 || f.Receipts != f.Counted) {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("%d receipts, %d counted, %d lost, %d twice", f.Receipts, f.Counted, f.Lost, f.Twice))
	}
	if d.result.Rounds != d.cfg.Rounds {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("%d of %d rounds committed", d.result.Rounds, d.cfg.Rounds))
	}
}

// write writes the page.
func (d *demo) write() error {
	var page bytes.Buffer
	if err := WriteReport(&page, d.result); err != nil {
		return err
	}
	if err := os.WriteFile(d.cfg.Report, page.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Latency is a distribution of times in microseconds.
type Latency struct{ P50, P99 float64 }

// latency times single predictions, features included, in this goroutine.
func latency(m *model.Model, rows []data.Row) Latency {
	p := m.Predictor()
	x, z := make([]float32, m.Spec.Inputs), make([]float32, 1)
	times := make([]time.Duration, 0, 4000)
	for i := range cap(times) + 200 {
		start := time.Now()
		m.Statistics.Features(rows[i%len(rows)], x)
		p.Predict(x, z)
		if i >= 200 { // the first warm the caches
			times = append(times, time.Since(start))
		}
	}
	return quantiles(times)
}

func quantiles(times []time.Duration) Latency {
	slices.Sort(times)
	at := func(q float64) float64 {
		return float64(times[min(int(q*float64(len(times))), len(times)-1)].Nanoseconds()) / 1e3
	}
	return Latency{at(0.5), at(0.99)}
}

// inferBody is a request of the Open Inference Protocol for one row, by the schema's names.
func inferBody(schema *data.Schema, row data.Row) ([]byte, error) {
	type input struct {
		Name     string `json:"name"`
		Datatype string `json:"datatype"`
		Shape    []int  `json:"shape"`
		Data     []any  `json:"data"`
	}
	var inputs []input
	for i, c := range schema.Columns {
		switch x := row[i]; {
		case c.Name == schema.Label || x != x:
		case c.Kind == data.Numeric:
			inputs = append(inputs, input{c.Name, "FP64", []int{1}, []any{x}})
		case c.Kind == data.Category:
			inputs = append(inputs, input{c.Name, "BYTES", []int{1}, []any{c.Categories[int(x)]}})
		default:
			inputs = append(inputs, input{c.Name, "BOOL", []int{1}, []any{x == 1}})
		}
	}
	b, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		return nil, fmt.Errorf("encode prediction request: %w", err)
	}
	return b, nil
}

// infer posts one request and returns the reply's body.
func infer(ctx context.Context, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for a prediction: %s: %s", resp.Status, out.String())
	}
	return out.Bytes(), nil
}
