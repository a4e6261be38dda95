package coordinator

import (
	"slices"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/internal/seeds"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// publicCSV are five rows that the coordinators of a test may see.
const publicCSV = "x,y\n0.1,false\n0.9,true\n0.2,false\n0.8,true\n0.7,true\n"

// by makes the next model of a round by the strategy and the rule alone, of rows that the coordinators were given; a rule trusts
// an update made of the first root of them.
func (f *testFederation) by(s fedavg.Settings, spec *choirv1.JobSpec, r *state.Round, rows []data.Row, root int, sent []fedavg.Named) []float32 {
	f.t.Helper()
	m, err := f.member(f.leader()).loadModel(f.ctx(), r.Model)
	if err != nil {
		f.t.Fatal(err)
	}
	a, err := s.Algorithm([]int{m.Schema.Features()}, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	a.WeightCap = spec.WeightCap
	c := fedavg.Counted{Sum: fedavg.NewSum(a.Shape()), Each: sent, Fleet: len(sent), Seed: r.Seed}
	for _, u := range sent {
		if err := c.Sum.Add(u.Update); err != nil {
			f.t.Fatal(err)
		}
	}
	if a.Strategy.Needs().Public {
		a.Public, _ = m.Statistics.Matrix(rows)
	}
	if a.Trusts() {
		x, y := m.Statistics.Matrix(rows[:root])
		client, err := fedavg.NewClient(a)
		if err != nil {
			f.t.Fatal(err)
		}
		w := fedavg.Work{Global: m.Params, X: x, Y: y, Seed: seeds.Derive("choir/trusted/v1", r.Seed, "", r.Number)}
		if c.Trusted, err = client.Update(f.ctx(), w); err != nil {
			f.t.Fatal(err)
		}
	}
	next, err := a.Combine(m.Params, nil, c)
	if err != nil {
		f.t.Fatal(err)
	}
	return next
}

// A strategy distils on the public rows of its job, and a rule trusts an update made of the first of them: on whichever
// coordinator leads, to the last bit.
func TestPublicRows(t *testing.T) {
	t.Parallel()
	var rows []data.Row
	err := data.ReadCSV(strings.NewReader(publicCSV), "public", testSchema(t), func(_ int, row data.Row) error { rows = append(rows, row); return nil })
	if err != nil {
		t.Fatal(err)
	}
	distils := fedavg.StrategySettings{Name: "feddf", DistilEpochs: 2, DistilRate: .1}
	for name, c := range map[string]struct {
		settings fedavg.Settings
		root     int
	}{
		"feddf":   {fedavg.Settings{Strategy: distils}, 0},
		"fltrust": {fedavg.Settings{Robust: fedavg.RobustSettings{Rule: "fltrust", Root: 3}}, 3},
		"both":    {fedavg.Settings{Strategy: distils, Robust: fedavg.RobustSettings{Rule: "fltrust", Root: 3}}, 3},
		"all":     {fedavg.Settings{Robust: fedavg.RobustSettings{Rule: "fltrust"}}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFederation(t, 3, nil, Observer{})
			nodes := f.enrol("a", "b", "c")
			spec := algorithmJob(t, 2, c.settings)
			if _, err := f.operators().SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: spec, Public: []byte(publicCSV)}); err != nil {
				t.Fatal(err)
			}
			f.statistics(nodes)
			for round := uint64(1); round <= 2; round++ {
				tasks := f.tasks(nodes)
				if round == 2 {
					f.kill(f.leader())
				}
				leader := f.leader()
				var sent []fedavg.Named
				for i, n := range nodes {
					p := n.payload(tasks[i], int32(100_000*(i-1)-50_000)) // one of them points elsewhere
					sent = append(sent, fedavg.Named{Node: n.name, Update: &fedavg.Update{Vectors: p.Vectors, Weight: p.Weight}})
					n.deliver(leader, tasks[i], p)
				}
				r := f.round(leader, round, state.PhaseClosed)
				settings, err := jobspec.Settings(spec)
				if err != nil {
					t.Fatal(err)
				}
				want := f.by(*settings, spec, r, rows, c.root, sent)
				if got := f.params(leader, r.Next); !slices.Equal(got, want) {
					t.Errorf("round %d: %v, want %v", round, got, want)
				}
				if slices.Equal(want, f.params(leader, r.Model)) {
					t.Errorf("round %d moves nothing", round)
				}
			}
		})
	}
}

// Public rows that cannot be, or that nothing looks at, are refused before the job begins.
func TestPublicRowsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	trust := fedavg.Settings{Robust: fedavg.RobustSettings{Rule: "fltrust"}}
	six := trust
	six.Robust.Root = 6
	for _, c := range []struct {
		settings  fedavg.Settings
		csv, want string
	}{
		{fedavg.Settings{}, publicCSV, "neither the strategy nor the rule looks at public rows"},
		{trust, "x,y\n", "public: no rows"},
		{trust, "x,y\n0.5,true\nmany,true\n", `public:3: column x: "many" is not a number`},
		{six, publicCSV, "root is 6, and public has 5 rows"},
		{trust, "", "name a file of them as public"},
	} {
		_, err := f.operators().SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: algorithmJob(t, 1, c.settings), Public: []byte(c.csv)})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
