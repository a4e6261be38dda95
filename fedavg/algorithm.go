package fedavg

import (
	"fmt"

	"choir.example/model"
	"choir.example/model/codec"
)

// Algorithm is all that node and server must agree on to train a model together: what a round is, apart from who takes
// part and on which data. Nodes make a Client of it; whoever combines calls Combine.
type Algorithm struct {
	Network    *model.Network
	Strategy   Strategy
	Rule       Rule              // nil: the weighted mean, of the sum alone
	Local      model.TrainConfig // of one node; Seed is set for each round
	Batch      int               // examples of a step
	Grid       codec.Grid        // of the vectors of an update
	Stochastic bool              // coordinates are rounded at random, by the node's seed of the round; otherwise to the nearest
	Clip       float64           // bound of the L2 norm of each vector of an update; 0: none
	WeightCap  int64             // largest weight of an update, in [1, MaxWeight]
	Public     []float32         // inputs without labels, for a strategy that needs them where it is combined; nil on nodes
}

// maxEpochs bounds a node's work in a round: more is a slip of the fingers, or a coordinator that keeps nodes from all else.
const maxEpochs = 1000

// Check names the setting that cannot be.
func (a *Algorithm) Check() error {
	if a.WeightCap < 1 || a.WeightCap > MaxWeight {
		return fmt.Errorf("weight cap %d, want 1 to %d", a.WeightCap, MaxWeight)
	}
	if err := a.Strategy.Needs().check(); err != nil {
		return err
	}
	if a.Trusts() && a.Strategy.Needs().Memory > 0 {
		return fmt.Errorf("robust: the rule trusts an update of the server's own, and the strategy has nodes that remember, which the server is not")
	}
	if s, ok := a.Strategy.(Asynchronous); ok {
		if err := a.checkAsynchronous(s); err != nil {
			return err
		}
	}
	if err := a.Network.CheckBatch(a.Batch); err != nil {
		return err
	}
	if err := a.Local.Validate(); err != nil {
		return err
	}
	if a.Local.Epochs > maxEpochs {
		return fmt.Errorf("local: epochs is %d, want at most %d", a.Local.Epochs, maxEpochs)
	}
	if s, ok := a.Strategy.(checker); ok {
		return s.Check(a)
	}
	return nil
}

// unclipped refuses a bound of updates to strategies for which it is none, or breaks what holds otherwise.
func (a *Algorithm) unclipped(name, because string) error {
	if a.Clip > 0 {
		return fmt.Errorf("privacy: clip is not for %s, %s; want none, or a strategy such as fedavg or fedprox", name, because)
	}
	return nil
}

// travels refuses local optimisers of which nobody can say how far their steps go, for strategies that divide by that.
func (a *Algorithm) travels(mu float64) error {
	if _, err := a.Local.Travel(1, mu); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return nil
}

// checker is what some strategies are.
type checker interface{ Check(a *Algorithm) error }

// Each reports whether updates must be kept one by one until they are combined.
func (a *Algorithm) Each() bool { return a.Rule != nil || a.Strategy.Needs().Each }

// Shape is what an update looks like, but for its evaluations.
func (a *Algorithm) Shape() Shape {
	needs := a.Strategy.Needs()
	s := Shape{Scalars: scalarDigits * needs.Scalars, WeightCap: a.heaviest()}
	for range 1 + needs.Vectors {
		s.Vectors = append(s.Vectors, a.Network.Size())
	}
	if a.Clip > 0 {
		s.ClipSquared = a.Grid.ClipSquared(a.Clip)
	}
	return s
}

// heaviest is the largest weight that an update may have.
func (a *Algorithm) heaviest() int64 {
	if a.Strategy.Needs().Uniform {
		return 1
	}
	return a.WeightCap
}

// zeros are n vectors of the model's length.
func (a *Algorithm) zeros(n int) [][]float32 {
	vs := make([][]float32, n)
	for i := range vs {
		vs[i] = make([]float32, a.Network.Size())
	}
	return vs
}

// FirstState is the server's state before the first round: zeros. Behind the strategy's vectors lie those that the rule
// remembers, one for each vector of an update, on the grid.
func (a *Algorithm) FirstState() [][]float32 { return a.zeros(a.stateVectors()) }

// stateVectors is how many vectors the server keeps.
func (a *Algorithm) stateVectors() int {
	needs := a.Strategy.Needs()
	if a.remembers() {
		return needs.State + 1 + needs.Vectors
	}
	return needs.State
}

func (a *Algorithm) remembers() bool { return a.Rule != nil && a.Rule.Needs().Memory }

// Trusts reports whether a round needs an update of the server's own.
func (a *Algorithm) Trusts() bool { return a.Rule != nil && a.Rule.Needs().Trusted }

// CheckCohort refuses a round of so many updates if the rule cannot hold with them, and names what would do.
func (a *Algorithm) CheckCohort(updates int) error {
	if a.Rule == nil {
		return nil
	}
	if err := a.Rule.Check(updates); err != nil {
		return fmt.Errorf("robust: %w", err)
	}
	return nil
}

// Shared is the part of the server's state that goes to the nodes with the model.
func (a *Algorithm) Shared(state [][]float32) [][]float32 { return state[:a.Strategy.Needs().Shared] }

// FirstMemory is what a node remembers before its first round: zeros.
func (a *Algorithm) FirstMemory() [][]float32 { return a.zeros(a.Strategy.Needs().Memory) }
