package simulate

import (
	"container/heap"
	"errors"
	"slices"
)

// aloft is what a snapshot of an asynchronous run has beside the model: the clock, and the nodes that are under way with the
// models that they began with. Updates that were made ahead of the clock are not in it: they are made again, to the last bit.
type aloft struct {
	Clock   float64      `json:"clock"`
	Begun   uint64       `json:"begun"`
	Lastly  float64      `json:"lastly"`
	Flights []flightLine `json:"flights"`
	Models  []int        `json:"models"` // versions of the models that flights began with

	models [][]float32 // in the order of Models
}

// flightLine is a flight in JSON.
type flightLine struct {
	Node    int     `json:"node"`
	Number  uint64  `json:"number"`
	Epochs  int     `json:"epochs,omitempty"`
	Fate    fate    `json:"fate,omitempty"`
	Wake    bool    `json:"wake,omitempty"`
	Model   int     `json:"model"` // version
	Arrives float64 `json:"arrives"`
}

// aloft is where the airspace stands after a step, when its buffer is empty. It shares the models.
func (a *airspace) aloft() *aloft {
	s := &aloft{Clock: a.clock, Begun: a.begun, Lastly: a.lastly}
	for _, f := range a.flights {
		s.Flights = append(s.Flights, flightLine{f.node, f.number, f.epochs, f.fate, f.wake, f.version, f.arrives})
		if !f.wake && !slices.Contains(s.Models, f.version) {
			s.Models, s.models = append(s.Models, f.version), append(s.models, f.model)
		}
	}
	return s
}

// restore puts the airspace where a snapshot was taken.
func (a *airspace) restore(s *Snapshot) error {
	if s.aloft == nil {
		return errors.New("the snapshot says of no node that it is under way: it is of another version of choir")
	}
	a.clock, a.begun, a.lastly = s.aloft.Clock, s.aloft.Begun, s.aloft.Lastly
	a.version, a.global = s.Round, s.global
	for _, l := range s.aloft.Flights {
		f := &flight{number: l.Number, fate: l.Fate, wake: l.Wake, version: l.Model, arrives: l.Arrives}
		if !l.Wake {
			model := slices.Index(s.aloft.Models, l.Model)
			if model < 0 || l.Model > s.Round || l.Node < 0 || l.Node >= len(a.busy) || a.busy[l.Node] || l.Epochs < 0 || l.Fate < heard || l.Fate > late {
				return errMisfit
			}
			f.participant = participant{name: NodeName(l.Node), node: l.Node, epochs: l.Epochs}
			f.model, a.busy[l.Node] = s.aloft.models[model], true
		}
		heap.Push(&a.flights, f)
	}
	return nil
}
