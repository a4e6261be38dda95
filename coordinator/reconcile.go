package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"choir.example/coordinator/state"

	"github.com/hashicorp/raft"
)

const (
	reconcileAgain = time.Second
	caughtUp       = 64 // entries that a new replica may lack and still be given a vote
)

// reconcile makes raft's configuration follow the voter list, for as long as this coordinator leads: who was removed
// goes at once; who is new gets the log first and a vote when it has caught up.
func (c *Coordinator) reconcile(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		pending, err := c.reconcileOnce(ctx)
		if err != nil && ctx.Err() == nil && said != err.Error() {
			said = err.Error()
			c.deps.Log.Warn("voters not changed yet", "error", err)
		}
		if err == nil && !pending {
			said = ""
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		pause(ctx, reconcileAgain)
	}
}

func (c *Coordinator) reconcileOnce(ctx context.Context) (pending bool, err error) {
	s := c.replica.State()
	if s.Cluster == "" {
		return false, nil
	}
	servers, err := c.replica.servers()
	if err != nil {
		return true, err
	}
	for _, srv := range servers {
		name := string(srv.ID)
		if _, ok := s.Coordinator(name); ok {
			continue
		}
		if name == c.cfg.Name { // the next leader strikes it out
			return true, c.replica.raft.LeadershipTransfer().Error()
		}
		c.deps.Log.Info("coordinator loses its vote", "voter", name)
		// At once: if those that stay need its vote, they have it for as long as it hears from this leader only.
		if err := c.replica.raft.RemoveServer(srv.ID, 0, peerTimeout).Error(); err != nil {
			return true, fmt.Errorf("remove voter %s: %w", name, err)
		}
	}
	for _, v := range s.Coordinators {
		i := slices.IndexFunc(servers, func(srv raft.Server) bool { return string(srv.ID) == v.Name })
		switch {
		case i < 0:
			pending = true
			if err := c.replica.raft.AddNonvoter(raft.ServerID(v.Name), raft.ServerAddress(v.Address), 0, peerTimeout).Error(); err != nil {
				return true, fmt.Errorf("send the log to %s: %w", v.Name, err)
			}
		case servers[i].Suffrage != raft.Voter:
			pending = true
			if applied, ok := c.appliedBy(ctx, v); !ok || applied+caughtUp < s.Index {
				continue
			}
			if err := c.replica.raft.AddVoter(raft.ServerID(v.Name), raft.ServerAddress(v.Address), 0, peerTimeout).Error(); err != nil {
				return true, fmt.Errorf("give %s a vote: %w", v.Name, err)
			}
			c.deps.Log.Info("coordinator has a vote", "voter", v.Name)
		}
	}
	return pending, nil
}

// servers is raft's latest configuration.
func (r *replica) servers() ([]raft.Server, error) {
	f := r.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read raft's configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// votes reports whether raft counts a coordinator's vote, by the latest configuration that is here.
func (r *replica) votes(name string) bool {
	servers, err := r.servers()
	return err == nil && slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == name && s.Suffrage == raft.Voter })
}

// lists reports whether raft has a coordinator in its latest configuration that is here.
func (r *replica) lists(name string) bool {
	servers, err := r.servers()
	return err != nil || slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == name })
}

// listsOther reports whether raft has somebody in its configuration who is no coordinator by the state.
func (r *replica) listsOther(s *state.State) bool {
	servers, err := r.servers()
	return err != nil || slices.ContainsFunc(servers, func(srv raft.Server) bool { _, ok := s.Coordinator(string(srv.ID)); return !ok })
}

// mayApprove refuses to let a coordinator in under a name whose former holder raft still counts: an empty replica must
// not inherit a vote. Other commands it lets pass.
func (r *replica) mayApprove(command []byte) error {
	cmd, err := state.DecodeCommand(command)
	if err != nil || cmd.GetApproveCoordinator() == nil {
		return nil // Apply refuses what cannot be decoded
	}
	name := cmd.GetApproveCoordinator().Name
	if _, ok := r.State().Coordinator(name); ok {
		return nil
	}
	servers, err := r.servers()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(servers, func(srv raft.Server) bool { return string(srv.ID) == name }) {
		return fmt.Errorf("the former coordinator %s is still being struck out; try again in a moment", name)
	}
	return nil
}
