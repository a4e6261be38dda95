package simulate

import (
	"cmp"
	"fmt"
	"math/rand/v2"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
)

// setAside takes examples from the nodes' parts that no node trains on: a share of all for the server, without their labels,
// or a few with them, and a share of each node's, on which it is measured in the end.
func (t *trial) setAside() error {
	if err := t.setPublicAside(); err != nil {
		return err
	}
	if err := t.setRootAside(); err != nil {
		return err
	}
	return t.holdOut()
}

// setPublicAside gives the server the inputs that its strategy needs.
func (t *trial) setPublicAside() error {
	share, needed := t.x.Data.Public, t.algorithm.Strategy.Needs().Public
	switch {
	case !(share >= 0 && share < 1):
		return fmt.Errorf("data: public is %v, want a share of the examples, 0 to below 1", share)
	case share > 0 && !needed:
		return fmt.Errorf("data: public is %v, but the strategy does not look at public inputs: want 0", share)
	case share == 0 && needed:
		return fmt.Errorf("data: public is 0, but the strategy needs public inputs: want the share of the examples that are kept from the nodes for it, such as 0.1")
	case share == 0:
		return nil
	}
	set := &t.data.Train
	n := max(1, int(share*float64(set.Len())+.5))
	public, err := t.take(n, "choir/public/v1", fmt.Sprintf("data: public is %v", share))
	if err != nil {
		return err
	}
	for _, e := range public {
		t.algorithm.Public = append(t.algorithm.Public, set.X[int(e)*set.Values():(int(e)+1)*set.Values()]...)
	}
	return nil
}

// setRootAside gives the server the examples that its rule trusts.
func (t *trial) setRootAside() (err error) {
	if !t.algorithm.Trusts() {
		return nil
	}
	n := cmp.Or(t.x.Robust.RootExamples(), fedavg.UsualRoot)
	if most := t.data.Train.Len() / 2; n > most {
		return fmt.Errorf("robust: root is %d, want at most %d, half of the examples", n, most)
	}
	t.root, err = t.take(n, "choir/root/v1", fmt.Sprintf("robust: root is %d", n))
	return err
}

// take takes n examples at random from whatever nodes hold them; what names the setting that is too large if it leaves one
// with none.
func (t *trial) take(n int, domain, what string) (examples []int32, err error) {
	taken := marked(t.data.Train.Len(), n, seeds.Derive(domain, t.cfg.Seed, "", 0))
	var nodes [][]int32
	for _, part := range t.parts {
		var rest []int32
		for _, e := range part {
			if !taken[e] {
				rest = append(rest, e)
			}
		}
		if len(rest) == 0 {
			return nil, fmt.Errorf("%s, which leaves %s without any of its %d examples: want less", what, NodeName(len(nodes)), len(part))
		}
		nodes = append(nodes, rest)
	}
	t.parts = nodes
	for e, mine := range taken {
		if mine {
			examples = append(examples, int32(e))
		}
	}
	return examples, nil
}

// holdOut divides each node's part for personal accuracy. A node with one example trains on it.
func (t *trial) holdOut() error {
	p := t.x.Evaluation.Personal
	switch {
	case !(p.Holdout >= 0 && p.Holdout < 1):
		return fmt.Errorf("evaluation: personal: holdout is %v, want a share of each node's examples, 0 to below 1", p.Holdout)
	case p.Epochs < 0 || p.Epochs > 0 && p.Holdout == 0:
		return fmt.Errorf("evaluation: personal: epochs is %d with holdout %v, want at least 0, and examples held out to see what they are good for", p.Epochs, p.Holdout)
	case p.Holdout > 0 && t.result.Fidelity != Math:
		return fmt.Errorf("evaluation: personal: nodes of fidelity %s measure by themselves, want fidelity math", t.result.Fidelity)
	case p.Holdout == 0:
		return nil
	}
	t.held = make([][]int32, len(t.parts))
	for i, part := range t.parts {
		n := min(max(1, int(p.Holdout*float64(len(part))+.5)), len(part)-1)
		taken := marked(len(part), n, seeds.Derive("choir/holdout/v1", t.cfg.Seed, NodeName(i), 0))
		var rest []int32
		for k, e := range part {
			if taken[k] {
				t.held[i] = append(t.held[i], e)
			} else {
				rest = append(rest, e)
			}
		}
		t.parts[i] = rest
	}
	return nil
}

// marked are n of the places below size, at random.
func marked(size, n int, seed uint64) []bool {
	marks := make([]bool, size)
	for _, i := range rand.New(rand.NewPCG(seed, 0x6173696465)).Perm(size)[:n] {
		marks[i] = true
	}
	return marks
}
