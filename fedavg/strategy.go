package fedavg

import (
	"fmt"

	"choir.example/model"
)

// A Strategy is a federated algorithm in its two halves: what a node does with the model it got, and what the server makes
// of the updates. Each reads like its paper, and is called by a simulation and by a federation alike. A strategy holds
// settings alone: what lasts longer than a round is the node's memory or the server's state, which are handed to it.
//
// Local runs on the node, in the goroutine that trains. Server runs wherever the round is combined. It uses + − × ÷ and
// square roots in float64 with explicit rounding, no other function, so that it gives the same bits on every processor:
// but for FedDF's, which trains, and says so.
//
// A strategy that does not go with every model or every local training has a method Check(*Algorithm) error, too, which
// names the setting that it cannot do with. Algorithm.Check asks it.
type Strategy interface {
	Needs() Needs
	Local(l *Local) error
	Server(r *Round) error
}

// Needs is what a strategy wants of nodes and server beside a model and a sum. The zero value wants nothing.
type Needs struct {
	Uniform bool // every update weighs the same, whatever its node has
	Vectors int  // of the model's length that an update has beside the delta, at most MaxParts-1
	Scalars int  // numbers that an update has, averaged like the delta; to 2^-23, at most 2^22 in magnitude
	Each    bool // Server looks at every update, not only at their sum
	Public  bool // Server looks at inputs without labels, Algorithm.Public
	Memory  int  // vectors of the model's length that a node keeps from round to round
	State   int  // vectors of the model's length that the server keeps
	Shared  int  // so many of them, the first, go to the nodes with the model
}

// Local is one node's work in one round, as a strategy's half on the node sees it.
type Local struct {
	Network  *model.Network    // whose parameters Global and Params are
	Global   []float32         // the model that came; read only
	Params   []float32         // equal to Global: what is trained, in place. What it differs by in the end is the delta
	Shared   [][]float32       // of the server's state, Needs.Shared; read only
	Memory   [][]float32       // of this node, Needs.Memory; zeros in its first round. Changed in place, as Client.Memory says
	Vectors  [][]float32       // to be filled: Needs.Vectors, zeros before
	Scalars  []float64         // to be filled: Needs.Scalars, zeros before
	Scale    float64           // of the delta, before it is clipped and encoded: 1 unless the strategy sets it
	Weight   int64             // of the update, in [1, Cap]: Examples, or 1 with Needs.Uniform, unless the strategy sets it
	Cap      int64             // largest weight
	Examples int               // that the node trains on
	Epochs   int               // of the job, for everybody: a node that does not manage all has fewer in Config
	Config   model.TrainConfig // the job's local training; the strategy may change it before it calls Train

	client *Client
	work   *Work
	train  func(cfg model.TrainConfig) (model.Training, error)
}

// Train trains Params by Config on the node's examples.
func (l *Local) Train() (model.Training, error) { return l.train(l.Config) }

// Loss is the mean loss of Global on the node's examples.
func (l *Local) Loss() (float64, error) { return l.client.trainer.Loss(l.Global, l.work.X, l.work.Y) }

// Touched are the parts of Params that Train may have changed: everything but the rows of embeddings that no example of
// the node reads. A strategy that leaves the rest of its vectors and its memory alone costs no more than what is learnt.
func (l *Local) Touched() []model.Range { return l.client.trainer.Touched() }

// Round is a cohort's updates, combined, as a strategy's half on the server sees them.
type Round struct {
	Network *model.Network // whose parameters Global and Next are
	Global  []float32      // the model that the nodes got; read only
	Next    []float32      // equal to Global: what becomes the next model, changed in place
	State   [][]float32    // of the server, Needs.State; zeros in the first round. Changed in place
	Count   int            // updates
	Fleet   int            // nodes in the federation, of which Count took part
	Each    []Single       // every update by name of its node, if Needs.Each; nil otherwise
	Public  []float32      // inputs without labels, one example after the other, if Needs.Public; read only

	means   [][]float64 // combined vectors, the delta first
	scalars []float64
}

// Single is one node's update.
type Single struct {
	Node   string
	Weight int64
	Delta  []float32 // in units of a parameter
}

// Delta is what the updates say together of the way from Global, in units of a parameter: their weighted mean, or what a
// robust rule makes of them. It is r's and may be changed.
func (r *Round) Delta() []float64 { return r.means[0] }

// Vector is the same for the i-th of the further vectors.
func (r *Round) Vector(i int) []float64 { return r.means[1+i] }

// Scalar is the weighted mean of the i-th scalar.
func (r *Round) Scalar(i int) float64 { return r.scalars[i] }

// Share is which part of the federation took part, |S|/N in papers.
func (r *Round) Share() float64 { return float64(r.Count) / float64(r.Fleet) }

// Move is Next = Global + rate·delta, rounded once.
func (r *Round) Move(rate float64, delta []float64) {
	for i, d := range delta {
		r.Next[i] = float32(float64(r.Global[i]) + float64(rate*d))
	}
}

// check refuses needs that an update cannot meet.
func (n Needs) check() error {
	if n.Vectors < 0 || n.Vectors > MaxParts-1 || n.Scalars < 0 || n.Memory < 0 || n.State < 0 || n.Shared < 0 || n.Shared > n.State {
		return fmt.Errorf("the strategy needs what no update has: %+v", n)
	}
	return nil
}
