package simulate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/simulate/attack"
)

// remembering is federated averaging that keeps vectors everywhere, and whose models depend on them.
type remembering struct{ fedavg.FedAvg }

func (remembering) Needs() fedavg.Needs { return fedavg.Needs{Memory: 1, State: 2} }

func (r remembering) Local(l *fedavg.Local) error {
	if _, err := l.Train(); err != nil {
		return err
	}
	for i := range l.Params {
		l.Memory[0][i] = l.Memory[0][i]/2 + (l.Params[i]-l.Global[i])/8
		l.Params[i] += l.Memory[0][i]
	}
	return nil
}

func (r remembering) Server(round *fedavg.Round) error {
	for i, d := range round.Delta() {
		round.State[1][i] += round.State[0][i]
		round.State[0][i] = float32(d / 8)
		round.Next[i] = round.Global[i] + float32(d) + round.State[0][i] + round.State[1][i]/16
	}
	return nil
}

// A run that was cut after any of its rounds goes on to the same models as one that was not.
func TestSnapshotGoesOn(t *testing.T) {
	for name, change := range map[string]func(x *Experiment){
		"vectors everywhere": func(x *Experiment) { x.Own.Strategy = remembering{} },
		"scaffold":           func(x *Experiment) { x.Strategy.Name = "scaffold" },
		"a rule that remembers": func(x *Experiment) {
			x.Robust = fedavg.RobustSettings{Rule: "centred-clipping", Radius: .1}
			x.Fleet.Liars = attack.Settings{Attack: "gaussian", Nodes: 1}
		},
		"a virtual clock": func(x *Experiment) {
			x.Fleet.Speed = SpeedSettings{Examples: 1, Spread: 1}
			x.Fleet.Availability = AvailabilitySettings{Day: .6, Night: .9}
		},
		"an asynchronous strategy": func(x *Experiment) { *x = open("fedasync", FleetSettings{Dropout: .1, Stragglers: .2}) },
		"nodes that buffer, by night": func(x *Experiment) {
			*x = open("fedbuff", FleetSettings{Stragglers: .5, Partial: true, Availability: AvailabilitySettings{Night: .1, Zones: 1}})
			x.Local.Epochs, x.Rounds = 2, 8
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := small()
			change(&x)
			snapshotGoesOn(t, x)
		})
	}
}

func snapshotGoesOn(t *testing.T, x Experiment) {
	var kept [][]byte
	whole, err := Run(t.Context(), x, RunConfig{Seed: 5, Keep: func(s *Snapshot) error {
		var b bytes.Buffer
		_, err := s.WriteTo(&b)
		kept = append(kept, b.Bytes())
		return err
	}})
	if err != nil || len(kept) != x.Rounds-1 {
		t.Fatalf("%d snapshots of %d rounds: %v", len(kept), x.Rounds, err)
	}
	for i, b := range kept {
		s, err := ReadSnapshot(bytes.NewReader(b))
		if err != nil || s.Round != i+1 {
			t.Fatalf("snapshot %d: %v", i, err)
		}
		again, err := Run(t.Context(), x, RunConfig{Seed: 5, Start: s})
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Series) != len(whole.Series) || again.Rounds != whole.Rounds || again.RoundsTo["0.10"] != whole.RoundsTo["0.10"] {
			t.Errorf("from round %d: %+v, want %+v", i+1, again, whole)
		}
		for k, m := range again.Series {
			if m != whole.Series[k] {
				t.Errorf("from round %d: %+v, want %+v", i+1, m, whole.Series[k])
			}
		}
	}
	s, _ := ReadSnapshot(bytes.NewReader(kept[0]))
	if _, err := Run(t.Context(), x, RunConfig{Seed: 5, Start: s, Fidelity: System}); err == nil {
		t.Error("fidelity system goes on from a snapshot of math, without coordinators and nodes")
	}
	if _, err := Run(t.Context(), x, RunConfig{Seed: 6, Start: s}); err == nil || !strings.Contains(err.Error(), "of another seed") {
		t.Errorf("another seed: %v", err)
	}
	x.Local.LearningRate = .3
	if _, err := Run(t.Context(), x, RunConfig{Seed: 5, Start: s}); err == nil || !strings.Contains(err.Error(), "of another experiment") {
		t.Errorf("another experiment: %v", err)
	}
}

// A snapshot that lacks bytes or has a wrong one is refused as a whole, and none brings the reader down.
func TestTornSnapshot(t *testing.T) {
	s := &Snapshot{
		Round: 1, global: []float32{1, 2}, state: [][]float32{{3, 4}}, memories: map[int][][]float32{7: {{5, 6}}},
		aloft: &aloft{Flights: []flightLine{{Node: 3, Model: 1}}, Models: []int{1}, models: [][]float32{{7, 8}}},
	}
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSnapshot(bytes.NewReader(b.Bytes()))
	if err != nil || got.memories[7][0][1] != 6 || got.state[0][0] != 3 || got.global[1] != 2 || got.aloft.models[0][1] != 8 || got.aloft.Flights[0].Node != 3 {
		t.Fatalf("%+v: %v", got, err)
	}
	for i := range b.Len() {
		flipped := bytes.Clone(b.Bytes())
		flipped[i] ^= 1
		for _, bad := range [][]byte{b.Bytes()[:i], flipped} {
			if _, err := ReadSnapshot(bytes.NewReader(bad)); !errors.Is(err, ErrTorn) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	}
}

// Whatever the bytes, the reader comes back.
func FuzzReadSnapshot(f *testing.F) {
	var b bytes.Buffer
	s := &Snapshot{Round: 1, global: []float32{1, 2}, state: [][]float32{{3, 4}}, memories: map[int][][]float32{7: {{5, 6}}}}
	if _, err := s.WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	for _, head := range []string{"{}", `{"parameters":9223372036854775807,"state":2}`, `{"parameters":-1}`, `{"parameters":1,"memory":4611686018427387904,"nodes":[1,2,3,4]}`, "null", "["} {
		body := append([]byte(snapshotMagic), binary.LittleEndian.AppendUint32(nil, uint32(len(head)))...)
		body = append(append(body, head...), 0, 0, 128, 63)
		sum := sha256.Sum256(body)
		f.Add(append(body, sum[:]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if sum := sha256.Sum256(b); len(b) > 100 { // most of what is tried would stop at the checksum
			_, _ = ReadSnapshot(bytes.NewReader(append(bytes.Clone(b), sum[:]...)))
		}
		_, _ = ReadSnapshot(bytes.NewReader(b))
	})
}
