package web

import (
	"maps"
	"net/http"
	"slices"

	"choir.example/coordinator/state"
)

// clusterBody is the first page: how the coordinators do, and how much there is of everything.
type clusterBody struct {
	Leader        string
	Term          uint64
	Index         uint64
	Majority      int
	Alive         int
	Replicas      []replicaRow
	Nodes         int
	Revoked       int // nodes
	Running, Jobs int
	Releases      int
	Records       uint64
	Root          string
	Waiting       []joinRow
}

type replicaRow struct {
	Name, Address, State string
	Leads, Here          bool
	Load                 float64
	Applied              uint64
	Epoch                uint64
}

// joinRow is a coordinator that asked to join and waits for the root's certificate.
type joinRow struct{ Name, Address string }

func (c *console) cluster(r *http.Request, s *state.State) (view, error) {
	seen, err := c.source.Cluster(r.Context())
	if err != nil {
		return view{}, err
	}
	return view{"cluster", "cluster", "Cluster", clusterOf(s, c.self, seen)}, nil
}

// clusterOf puts together what is agreed and what is seen.
func clusterOf(s *state.State, self string, seen Cluster) clusterBody {
	b := clusterBody{
		Leader: seen.Leader, Term: seen.Term, Index: s.Index, Majority: s.Majority(), Jobs: len(s.Jobs), Records: s.Log.Size(),
		Root: fingerprint(s.Root),
	}
	for _, v := range s.Coordinators {
		r := seen.Replicas[v.Name]
		row := replicaRow{
			Name: v.Name, Address: v.Address, State: r.State, Leads: v.Name == seen.Leader, Here: v.Name == self,
			Load: r.Load, Applied: r.Applied, Epoch: v.Epoch.Epoch,
		}
		if row.Here {
			row.Applied = s.Index
		}
		if row.State == "alive" {
			b.Alive++
		}
		b.Replicas = append(b.Replicas, row)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Joins)) {
		b.Waiting = append(b.Waiting, joinRow{name, s.Joins[name].Address})
	}
	for _, n := range s.Nodes {
		if n.Revoked {
			b.Revoked++
		} else {
			b.Nodes++
		}
	}
	for _, j := range s.Jobs {
		if j.State == state.JobRunning {
			b.Running++
		}
	}
	for _, rs := range s.Releases {
		b.Releases += len(rs)
	}
	return b
}
