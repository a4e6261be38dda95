package fedavg

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
)

// line is a straight line to be fitted: one input, one weight, one bias.
func line(t *testing.T, s Settings) *Algorithm {
	t.Helper()
	s.Architecture = model.Architecture{Name: "linear"}
	a, err := s.Algorithm([]int{1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// work is a node with the two points (1, 3) and (2, 5).
func work(a *Algorithm) Work {
	return Work{Global: make([]float32, a.Network.Size()), Memory: a.FirstMemory(), Shared: a.Shared(a.FirstState()), X: []float32{1, 2}, Y: []float32{3, 5}, Seed: 9}
}

func TestFewerBitsMakeACoarserUpdate(t *testing.T) {
	fine := line(t, Settings{Local: LocalSettings{Epochs: 5, LearningRate: .1}})
	c, err := NewClient(fine)
	must(t, err)
	u, err := c.Update(context.Background(), work(fine))
	must(t, err)
	for _, rounding := range []string{"nearest", "stochastic"} {
		coarse := line(t, Settings{Local: LocalSettings{Epochs: 5, LearningRate: .1}, Compression: Compression{Range: 4, Bits: 8, Rounding: rounding}})
		c, err := NewClient(coarse)
		must(t, err)
		got, err := c.Update(context.Background(), work(coarse))
		must(t, err)
		for i, q := range got.Vectors[0] {
			exact, near := float64(u.Vectors[0][i])*fine.Grid.Step(), float64(q)*coarse.Grid.Step()
			if d := math.Abs(exact - near); d > coarse.Grid.Step() || q > 127 || q < -127 {
				t.Errorf("%s: coordinate %d is %v, want within %v of %v", rounding, i, near, coarse.Grid.Step(), exact)
			}
		}
		if slices.Max(got.Vectors[0]) == 0 {
			t.Errorf("%s: nothing was learnt", rounding)
		}
	}
}

func TestSettingsAreRefused(t *testing.T) {
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{Compression: Compression{Bits: 1}}, "compression: bits is 1, want 2 to 24"},
		{Settings{Compression: Compression{Bits: 25}}, "compression: bits is 25, want 2 to 24"},
		{Settings{Compression: Compression{Range: -1}}, "compression: range is -1, want 1e-06 to 1e+06"},
		{Settings{Compression: Compression{Rounding: "up"}}, `compression: rounding "up", want nearest or stochastic`},
		{Settings{Strategy: StrategySettings{Name: "fedmagic"}}, `strategy: name "fedmagic", want one of`},
		{Settings{Local: LocalSettings{LearningRate: -1}}, "learning rate -1"},
	} {
		c.s.Architecture.Name = "linear"
		if _, err := c.s.Algorithm([]int{1}, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}
