package jobspec

import (
	"reflect"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"
)

const schema = `{"name":"shop","unit":"visit","label":"buys","columns":[{"name":"age","kind":"numeric","max":100},{"name":"buys","kind":"boolean"}]}`

// tensors is a job without a schema.
func tensors(t *testing.T, s fedavg.Settings) *choirv1.JobSpec {
	t.Helper()
	b, err := Encode(&s)
	if err != nil {
		t.Fatal(err)
	}
	return &choirv1.JobSpec{
		Name: "job", Algorithm: b, Examples: &choirv1.Examples{Input: []uint32{4, 4, 1}, Outputs: 3}, WeightCap: 100, Publish: PublishNone,
	}
}

func TestAlgorithm(t *testing.T) {
	s := fedavg.Settings{
		Architecture: model.Architecture{Name: "mlp", Hidden: []int{5}}, Strategy: fedavg.StrategySettings{Name: "fedprox", Mu: .5},
		Local: fedavg.LocalSettings{Epochs: 3}, Compression: fedavg.Compression{Bits: 8},
	}
	spec := tensors(t, s)
	got, err := Settings(spec)
	if err != nil || !reflect.DeepEqual(*got, s) {
		t.Errorf("settings %+v, %v, want %+v", got, err, s)
	}
	a, err := Algorithm(spec)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := a.Strategy.(fedavg.FedProx); !ok || p.Mu != .5 || a.Network.Inputs() != 16 || a.Network.Outputs() != 3 || a.WeightCap != 100 || a.Local.Epochs != 3 || a.Batch != 32 {
		t.Errorf("%+v", a)
	}
}

// A job of an older client says in its own fields what it trains. Numbers count as they stand, 0 epochs, too.
func TestOlderJob(t *testing.T) {
	spec := &choirv1.JobSpec{
		Name: "job", Schema: []byte(schema), Hidden: []uint32{7}, LocalEpochs: 0, Batch: 4, LearningRate: .25, Range: 2, Clip: 3, WeightCap: 9,
	}
	a, err := Algorithm(spec)
	if err != nil {
		t.Fatal(err)
	}
	if a.Strategy != (fedavg.FedAvg{Rate: 1}) || a.Network.Inputs() != 1 || a.Network.Outputs() != 1 || a.Local.Epochs != 0 || a.Local.Rate != .25 ||
		a.Batch != 4 || a.Grid.Range != 2 || a.Clip != 3 || a.WeightCap != 9 {
		t.Errorf("%+v", a)
	}
	spec.Range = 0
	if _, err := Algorithm(spec); err == nil || err.Error() != "job job: range is 0, want 1e-06 to 1e+06" {
		t.Errorf("range 0: %v", err)
	}
	spec.Range, spec.Hidden = 2, nil
	if _, err := Algorithm(spec); err == nil || err.Error() != "job job: hidden is empty, want 1 to 8 layers" {
		t.Errorf("no layers: %v", err)
	}
	spec.Hidden = []uint32{7}
	if s, err := Settings(spec); err != nil || s.Architecture.Hidden[0] != 7 || s.Compression.Range != 2 || s.Privacy.Clip != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestBadSpecifications(t *testing.T) {
	for want, change := range map[string]func(*choirv1.JobSpec){
		"algorithm: json: unknown field":         func(s *choirv1.JobSpec) { s.Algorithm = []byte(`{"arhcitecture":{}}`) },
		"algorithm is not in canonical form":     func(s *choirv1.JobSpec) { s.Algorithm = append(s.Algorithm, ' ') },
		"neither a schema nor examples":          func(s *choirv1.JobSpec) { s.Examples = nil },
		"both a schema and examples":             func(s *choirv1.JobSpec) { s.Schema = []byte(schema) },
		"parse schema":                           func(s *choirv1.JobSpec) { s.Schema, s.Examples = []byte("{"), nil },
		"weight cap 0":                           func(s *choirv1.JobSpec) { s.WeightCap = 0 },
		"architecture: ":                         func(s *choirv1.JobSpec) { s.Examples.Input = []uint32{1 << 31, 1 << 31, 1 << 31} },
		`strategy: name "sgd", want one of`:      func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Strategy.Name = "sgd" }) },
		`privacy: mechanism "magic", want none`:  func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Privacy.Mechanism = "magic" }) },
		"privacy: clip is -1, want":              func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Privacy.Clip = -1 }) },
		"privacy: clip is 1e-09, want at least":  func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Privacy.Clip = 1e-9 }) },
		"local: batch of":                        func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Local.Batch = 1 << 20 }) },
		"local: epochs is 1001, want at most":    func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Local.Epochs = 1001 }) },
		"compression: bits is 1, want 2 to":      func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Compression.Bits = 1 }) },
		"local: learning_rate is -1, want above": func(s *choirv1.JobSpec) { change(t, s, func(x *fedavg.Settings) { x.Local.LearningRate = -1 }) },
	} {
		spec := tensors(t, fedavg.Settings{Architecture: model.Architecture{Name: "mlp"}})
		change(spec)
		if _, err := Algorithm(spec); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "job job: ") {
			t.Errorf("%v, want job job: … %s", err, want)
		}
	}
	if _, err := Settings(nil); err == nil {
		t.Error("no job has settings")
	}
}

// change alters a job's settings.
func change(t *testing.T, spec *choirv1.JobSpec, f func(*fedavg.Settings)) {
	t.Helper()
	s, err := Settings(spec)
	if err != nil {
		t.Fatal(err)
	}
	f(s)
	if spec.Algorithm, err = Encode(s); err != nil {
		t.Fatal(err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"architecture":{"name":"mlp"},"local":{"optimiser":{},"schedule":{}},"strategy":{},"robust":{},"compression":{},"privacy":{}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec := &choirv1.JobSpec{Name: "job", Algorithm: b, Examples: &choirv1.Examples{Input: []uint32{2}, Outputs: 2}, WeightCap: 1}
		s, err := Settings(spec)
		if err != nil {
			return
		}
		if again, err := Encode(s); err != nil || len(b) > 0 && string(again) != string(b) {
			t.Errorf("%q became %q, %v", b, again, err)
		}
		_, _ = Algorithm(spec)
	})
}
