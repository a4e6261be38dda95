package simulate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Fidelity says how much of a federation is real in a run. Both give the same model, round by round, on one kernel path.
type Fidelity string

// The fidelities.
const (
	Math   Fidelity = "math"   // nodes' and server's arithmetic alone, called directly
	System Fidelity = "system" // real coordinators and nodes, with replication, sealed updates and an audit log
)

// RunConfig says how to run an experiment.
type RunConfig struct {
	Seed     uint64
	Fidelity Fidelity
	Workers  int         // clients that train at a time; 0: one a core
	Loader   *Loader     // of data sets, to share between runs; nil: one of the run's own
	Progress func(Point) // called after each round, in the goroutine of Run; nil: not told

	Stage func(what string) // called before the first round with what begins, such as reading data, in the goroutine of Run; nil: not told

	Coordinators int              // of fidelity system; 0: 1
	Log          *slog.Logger     // of coordinators and nodes; nil: none
	Now          func() time.Time // the wall clock that certificates of coordinators and nodes go by; for use by several goroutines. nil: time.Now

	// Dir is where fidelity system keeps coordinators and nodes; "": a temporary directory, removed afterwards. It is empty or does
	// not exist before. The run that was stopped or killed in it goes on with what is there, with or without Start, and any other is
	// refused. When the run is over it is of no use any more; the caller removes it. It has keys: its files are the owner's alone.
	Dir string

	Start *Snapshot             // goes on from there; nil: from the beginning. Of fidelity system, with the coordinators and nodes in Dir
	Keep  func(*Snapshot) error // called after each round but the last; valid until it returns. nil: not called, nor of fidelity system without Dir
}

// Point is where a run stands after a round. Accuracy and Loss are NaN where the round was not measured.
type Point struct {
	Round    int
	Accuracy float64
	Loss     float64
	Digest   string
	Counted  int     // updates that made the model
	Dropped  int     // nodes that were drawn and never heard of again
	Late     int     // nodes that were drawn and came too late
	Skipped  string  // why the round made no model; empty: it did
	Seconds  float64 // on the virtual clock, when the round was over
	Sent     int64   // bytes of updates that nodes sent
	Received int64   // bytes of models that nodes received
}

// Result is what a run found. Its JSON form is a contract for scripts.
type Result struct {
	Name            string         `json:"name"`
	Seed            uint64         `json:"seed"`
	Fidelity        Fidelity       `json:"fidelity"`
	Rounds          int            `json:"rounds"` // that made a model; like all that follows without the one that diverged
	Seconds         float64        `json:"seconds"`
	SecondsPerRound float64        `json:"seconds_per_round"`
	ModelDigest     string         `json:"model_digest"`
	Final           Measured       `json:"final"` // of the last round that was measured
	RoundsTo        map[string]int `json:"rounds_to"`
	Skipped         []SkippedRound `json:"skipped,omitempty"`
	Spent
	Series    []Measurement `json:"series"`
	Report    string        `json:"report"`
	Saturated int64         `json:"saturated"`          // coordinates of all updates that lay outside compression.range, and were sent as its end
	Personal  *Personal     `json:"personal,omitempty"` // nil unless evaluation.personal asks for it
	Diverged  string        `json:"diverged,omitempty"` // the round that diverged, and why; empty if none did
}

// Ended reports whether Final is of the last round: it is not where nothing was measured, or the run diverged.
func (r *Result) Ended() bool { return len(r.Series) > 0 && r.Diverged == "" }

// MarshalJSON writes the result as an object. What a run without an end would have come to is null: it is not zero.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	if r.Ended() {
		return json.Marshal(plain(r))
	}
	return json.Marshal(struct {
		plain
		Final struct {
			Accuracy *float64 `json:"accuracy"`
			Loss     *float64 `json:"loss"`
		} `json:"final"`
	}{plain: plain(r)})
}

// Measured is how well a model does on the test set.
type Measured struct {
	Accuracy float64  `json:"accuracy"`
	Loss     float64  `json:"loss"`
	Backdoor *float64 `json:"backdoor,omitempty"` // share of other classes' examples that, with the liars' mark, are taken for their class; nil: there is no mark
}

// Measurement is a round that was measured.
type Measurement struct {
	Round int `json:"round"`
	Measured
	ModelDigest string `json:"model_digest"`
	Counted     int    `json:"updates"` // that made the model of this round
	Spent              // until this round was over
}

// Spent is what a run has cost: time on the virtual clock, and bytes on the simulated wire.
type Spent struct {
	VirtualSeconds float64 `json:"virtual_seconds"`
	BytesUp        int64   `json:"bytes_up"`   // of updates that nodes sent
	BytesDown      int64   `json:"bytes_down"` // of models that nodes received
}

// SkippedRound is a round that made no model: the one before stays.
type SkippedRound struct {
	Round  int    `json:"round"`
	Reason string `json:"reason"`
}

// Run runs an experiment with one seed. A run that ends early with an error, such as model.ErrDiverged or that of ctx, has
// the result of the rounds before; one that could not begin has none. Both fidelities diverge in the same round, with the same words.
func Run(ctx context.Context, x Experiment, cfg RunConfig) (*Result, error) {
	t, err := newTrial(x, cfg)
	if err != nil {
		return nil, fmt.Errorf("experiment %s: %w", x.Name, err)
	}
	t.start = time.Now()
	t.cfg.Stage("training")
	rounds := t.math
	if t.result.Fidelity == System {
		rounds = t.system
	}
	if err := rounds(ctx); err != nil {
		t.result.Diverged = divergence(err)
		return t.timed(), fmt.Errorf("experiment %s: %w", x.Name, err)
	}
	return t.timed(), nil
}

// timed is the result with the time that it took until now, the time before a snapshot included.
func (t *trial) timed() *Result {
	r := t.result
	r.Seconds = time.Since(t.start).Seconds()
	if t.cfg.Start != nil {
		r.Seconds += t.cfg.Start.Result.Seconds
	}
	r.SecondsPerRound = r.Seconds / float64(max(r.Rounds, 1))
	return r
}

// closed takes in the model of a round and reports whether that was the last one, since the target is reached. Of a model that
// does not learn it takes in nothing.
func (t *trial) closed(round, counted int, params []float32) (reached bool, err error) {
	p := t.point(round, counted, params)
	every := cmp.Or(t.x.Evaluation.Every, 1)
	measured, m := round%every == 0 || round == t.rounds, Measured{}
	if measured {
		m = t.measure(params)
		if err := learning(m); err != nil {
			return false, &roundError{round, err}
		}
	}
	r := t.result
	r.VirtualSeconds, r.BytesUp, r.BytesDown = p.Seconds, r.BytesUp+p.Sent, r.BytesDown+p.Received
	r.Rounds, r.ModelDigest, r.Saturated = round, p.Digest, r.Saturated+t.saturated.Swap(0)
	if p.Skipped != "" {
		r.Skipped = append(r.Skipped, SkippedRound{round, p.Skipped})
	}
	if measured {
		p.Accuracy, p.Loss = m.Accuracy, m.Loss
		reached = t.learnt(&p, m)
	}
	if t.cfg.Progress != nil {
		t.cfg.Progress(p)
	}
	return reached, nil
}

// point is where the run stands after a round, before its model is measured.
func (t *trial) point(round, counted int, params []float32) Point {
	a := t.account(round)
	return Point{
		Round: round, Accuracy: math.NaN(), Loss: math.NaN(), Digest: digestOf(params), Counted: counted,
		Dropped: a.dropped, Late: a.late, Skipped: a.skipped, Seconds: a.seconds, Sent: t.sent.Swap(0) + a.tooLate, Received: a.received,
	}
}

// learnt takes in how well the model of a round does, and reports whether the target is reached.
func (t *trial) learnt(p *Point, m Measured) (reached bool) {
	t.result.Final = m
	t.result.Series = append(t.result.Series, Measurement{p.Round, m, p.Digest, p.Counted, t.result.Spent})
	for _, a := range t.x.Evaluation.RoundsTo {
		key := levelKey(a)
		if _, reached := t.result.RoundsTo[key]; m.Accuracy >= a && !reached {
			t.result.RoundsTo[key] = p.Round
		}
	}
	return t.x.Target.Accuracy > 0 && m.Accuracy >= t.x.Target.Accuracy
}

// digestOf identifies parameters: SHA-256 over their bits.
func digestOf(params []float32) string {
	h := sha256.New()
	var buf [4096]byte
	for len(params) > 0 {
		n := min(len(params), len(buf)/4)
		for i, v := range params[:n] {
			binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(v))
		}
		h.Write(buf[:4*n])
		params = params[n:]
	}
	return hex.EncodeToString(h.Sum(nil))
}
