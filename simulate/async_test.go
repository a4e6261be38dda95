package simulate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/simulate/attack"
)

// open is an experiment without rounds: 40 nodes, of which 10 train at a time, at speeds that differ.
func open(strategy string, s FleetSettings) Experiment {
	x := fleetOf(s)
	x.Strategy.Name, x.Strategy.Buffer, x.Rounds = strategy, 0, 30
	if s.Speed.Examples == 0 {
		x.Fleet.Speed = SpeedSettings{Examples: 10, Spread: 1}
	}
	return x
}

func TestAsynchronousLearns(t *testing.T) {
	for strategy, rounds := range map[string]int{"fedbuff": 40, "fedasync": 600} {
		x := open(strategy, FleetSettings{})
		x.Rounds, x.Evaluation.Every = rounds, rounds
		r, err := Run(t.Context(), x, RunConfig{Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		if r.Final.Accuracy < .8 || r.Rounds != rounds || r.VirtualSeconds == 0 {
			t.Errorf("%s: %+v", strategy, r)
		}
	}
}

// However many workers train ahead of the clock, the models are the same; with drop-outs, stragglers and nights, too.
func TestAsynchronousIsTheSameForAllWorkers(t *testing.T) {
	busy := FleetSettings{
		Dropout: .2, Stragglers: .3, Partial: true, Bandwidth: BandwidthSettings{Up: 100, Latency: 1},
		Availability: AvailabilitySettings{Day: .2, Night: .5},
	}
	for _, strategy := range []string{"fedbuff", "fedasync"} {
		for _, s := range []FleetSettings{{}, busy} {
			models := map[string]bool{}
			for _, workers := range []int{1, 2, 5} {
				r, err := Run(t.Context(), open(strategy, s), RunConfig{Seed: 4, Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range r.Series {
					models[m.ModelDigest] = true
				}
			}
			if len(models) != 30 {
				t.Errorf("%s: three runs of 30 steps had %d models in all, want 30", strategy, len(models))
			}
		}
	}
}

// naive runs the same experiment as a list of events: everybody is trained when they begin, and a step's mean is a loop. Liars
// manipulate the inner product.
func naive(t *testing.T, x Experiment, seed uint64) (digests []string) {
	t.Helper()
	tr, err := newTrial(x, RunConfig{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	client, err := fedavg.NewClient(tr.algorithm)
	if err != nil {
		t.Fatal(err)
	}
	type event struct {
		node, number, version int
		arrives               float64
		q                     []int32
	}
	var events, buffer []event
	global, clock, version := tr.algorithm.Network.Initial(seed), 0.0, 0
	strategy := tr.algorithm.Strategy.(fedavg.FedBuff)
	for number := 0; version < x.Rounds; {
		for len(events) < tr.cohort {
			rng := rand.New(rand.NewPCG(seeds.Derive("choir/start/v1", seed, jobName, uint64(number)), 0))
			node := rng.IntN(40)
			for slices.ContainsFunc(events, func(e event) bool { return e.node == node }) {
				node = rng.IntN(40)
			}
			x, y := tr.appendExamples("train", node, tr.parts[node], nil, nil)
			u, err := client.Update(t.Context(), fedavg.Work{Global: global, X: x, Y: y, Seed: seeds.Derive("choir/node/v1", seed, NodeName(node), uint64(number))})
			if err != nil {
				t.Fatal(err)
			}
			took := tr.caller.devices[node].train * float64(len(tr.parts[node])*5)
			events = append(events, event{node, number, version, clock + took, slices.Clone(u.Vectors[0])})
			number++
		}
		slices.SortFunc(events, func(a, b event) int {
			return cmp.Or(cmp.Compare(a.arrives, b.arrives), cmp.Compare(a.number, b.number))
		})
		e := events[0]
		events, clock = events[1:], e.arrives
		buffer = append(buffer, e)
		if len(buffer) < strategy.K {
			continue
		}
		next, total := slices.Clone(global), int64(0)
		var weights []int64
		for _, e := range buffer {
			w := int64(strategy.Discount(version-e.version)*65536 + .5)
			weights, total = append(weights, w), total+w
		}
		for i := range next {
			sum, honest, count := int64(0), int64(0), 0
			for _, e := range buffer {
				if !tr.lies(e.node) {
					honest, count = honest+int64(e.q[i]), count+1
				}
			}
			for k, e := range buffer {
				q := int64(e.q[i])
				if tr.lies(e.node) && count > 0 { // inner-product manipulation: the opposite of the honest mean, so many times
					q = int64(math.RoundToEven(-float64(honest) / float64(count) * x.Fleet.Liars.Scale))
				}
				sum += weights[k] * q
			}
			mean := float64(sum) / float64(total) * tr.algorithm.Grid.Step()
			rate := strategy.Rate * (float64(total) / float64(int64(strategy.K)*65536))
			next[i] = float32(float64(global[i]) + float64(rate*mean))
		}
		global, version, buffer = next, version+1, nil
		digests = append(digests, digestOf(global))
	}
	return digests
}

func TestAsynchronousIsTheNaiveOne(t *testing.T) {
	for _, liars := range []attack.Settings{{}, {Attack: "inner-product", Nodes: 12, Scale: .5}} {
		x := open("fedbuff", FleetSettings{Liars: liars})
		x.Strategy.Buffer = 3
		want := naive(t, x, 8)
		r, err := Run(t.Context(), x, RunConfig{Seed: 8})
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range r.Series {
			if m.ModelDigest != want[i] {
				t.Fatalf("%s: step %d has another model than a list of events", liars.Attack, i+1)
			}
		}
	}
}

// With a speed of 100 examples a second for all, 20 examples and 5 epochs take a second: ten nodes arrive each second,
// and ten of them make a step. With drop-outs more seconds pass; whoever was sent a model is counted in the bytes.
func TestAsynchronousClock(t *testing.T) {
	s := FleetSettings{Speed: SpeedSettings{Examples: 100}}
	r, err := Run(t.Context(), open("fedbuff", s), RunConfig{Seed: 1})
	if err != nil || r.VirtualSeconds != 30 {
		t.Fatalf("%+v, %v", r, err)
	}
	var points []Point
	s.Dropout, s.Stragglers = .25, .25
	r, err = Run(t.Context(), open("fedbuff", s), RunConfig{Seed: 1, Progress: func(p Point) { points = append(points, p) }})
	if err != nil {
		t.Fatal(err)
	}
	var sum Point
	for _, p := range points {
		sum.Counted, sum.Dropped, sum.Late = sum.Counted+p.Counted, sum.Dropped+p.Dropped, sum.Late+p.Late
	}
	began := int64(sum.Counted + sum.Dropped + sum.Late)
	if sum.Counted != 300 || sum.Dropped < 60 || sum.Late < 60 || r.VirtualSeconds < 40 || r.BytesDown < 396*began || r.BytesDown > 396*(began+10) {
		t.Errorf("%+v; %+v", sum, r.Spent)
	}
}

func TestAsynchronousRefusals(t *testing.T) {
	for _, c := range []struct {
		change func(x *Experiment, cfg *RunConfig)
		want   string
	}{
		{func(_ *Experiment, cfg *RunConfig) { cfg.Fidelity = System }, "runs coordinators, who make models in rounds; want fidelity math"},
		{func(_ *Experiment, cfg *RunConfig) { cfg.Start = &Snapshot{} }, "the snapshot is of another experiment"},
		{func(x *Experiment, _ *RunConfig) { x.Fleet = FleetSettings{} }, "nothing takes time; want speed or bandwidth"},
		{func(x *Experiment, _ *RunConfig) { x.Cohort.Draw = drawByNumPy }, "cohort: draw numpy is for rounds"},
		{func(x *Experiment, _ *RunConfig) { x.Fleet.Interval = 3 }, "are for rounds, and an asynchronous strategy has none"},
		{func(x *Experiment, _ *RunConfig) { x.Fleet.Dropout = 1 }, "leave nobody who is heard"},
		{func(x *Experiment, _ *RunConfig) { x.Fleet.Dropout, x.Fleet.Stragglers = .6, .5 }, "leave nobody who is heard"},
		{func(x *Experiment, _ *RunConfig) { x.Fleet.Availability.Day, x.Fleet.Availability.Night = 1e-12, 1e-12 }, "in 10000 hours no node was there"},
		{func(x *Experiment, _ *RunConfig) { x.Own.Rule = atLeast(1) }, "want fedbuff with a larger buffer, or a mean"},
		{func(x *Experiment, _ *RunConfig) {
			x.Strategy.Name, x.Robust = "fedbuff", fedavg.RobustSettings{Rule: "krum", F: 4}
		}, "robust: krum with f 4 needs 11 updates and there are 10: want f at most 3, or 11 updates"},
		{func(x *Experiment, _ *RunConfig) { x.Strategy.Name, x.Robust.Rule = "fedbuff", "fltrust" }, "robust: the rule holds updates against one of the server's own, which is never stale"},
	} {
		x, cfg := open("fedasync", FleetSettings{}), RunConfig{Seed: 1}
		c.change(&x, &cfg)
		if _, err := Run(t.Context(), x, cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
