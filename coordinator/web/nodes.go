package web

import (
	"net/http"

	"choir.example/coordinator/state"
)

// nodesBody is the list of nodes, by name.
type nodesBody struct {
	Present int // of those that may take part
	Revoked int
	Pager   pager
	Nodes   []nodeRow
}

type nodeRow struct {
	Name            string
	Labels          map[string]string
	Present         bool
	Revoked         bool
	Spent, Reserved uint32
}

func (c *console) nodes(r *http.Request, s *state.State) (view, error) {
	return view{"nodes", "nodes", "Nodes", nodesOf(s, c.source.Present(r.Context()), pageOf(r, uint64(len(s.Nodes))))}, nil
}

func nodesOf(s *state.State, present map[string]bool, p pager) nodesBody {
	b := nodesBody{Pager: p}
	names := s.NodeNames()
	for _, name := range names {
		switch {
		case s.Nodes[name].Revoked:
			b.Revoked++
		case present[name]:
			b.Present++
		}
	}
	for _, name := range cut(p, names) {
		n := s.Nodes[name]
		b.Nodes = append(b.Nodes, nodeRow{
			Name: name, Labels: n.Labels, Present: present[name], Revoked: n.Revoked, Spent: n.Spent, Reserved: n.Reserved,
		})
	}
	return b
}
