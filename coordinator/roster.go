package coordinator

import (
	"context"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

const rosterAgain = time.Second

// rosterOf is the voter list of a state, unsigned.
func rosterOf(s *state.State) audit.Roster {
	r := audit.Roster{Cluster: s.Cluster, Version: s.RosterVersion()}
	for _, v := range s.Coordinators {
		r.Coordinators = append(r.Coordinators, audit.Coordinator{Name: v.Name, Address: v.Address, Chain: s.Shown(v)})
	}
	return r
}

// countersign gathers the voters' signatures over the voter list whenever it changes: nodes take a list that a majority
// has signed. It goes on until all have signed, because a node may know only some of them.
func (c *Coordinator) countersign(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		s := c.replica.State()
		if held := c.roster.Load(); s.Cluster == "" || held != nil && held.Version == s.RosterVersion() && len(held.Signatures) == len(held.Coordinators) {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if c.gatherRoster(ctx, s) < len(s.Coordinators) {
			pause(ctx, rosterAgain)
		}
	}
}

// gatherRoster asks all voters once; the roster is handed out when a majority has signed.
func (c *Coordinator) gatherRoster(ctx context.Context, s *state.State) (signed int) {
	r := rosterOf(s)
	signatures := map[string][]byte{}
	if c.shows(s) {
		signatures[c.cfg.Name] = r.Sign(c.cfg.Name, c.own.Load().key()).Signature
	}
	for name, reply := range c.askPeers(ctx, s) {
		if reply.Roster == r.Version {
			signatures[name] = reply.RosterSignature
		}
	}
	for _, v := range s.Coordinators {
		key, err := keyOf(v.Chain)
		if sig := signatures[v.Name]; err == nil && seal.Verify(key, audit.DomainRoster, r.Message(), sig) {
			r.Signatures = append(r.Signatures, audit.Signature{Signer: v.Name, Signature: sig})
		}
	}
	if len(r.Signatures) < s.Majority() {
		return len(r.Signatures)
	}
	if held := c.roster.Load(); held == nil || held.Version != r.Version || len(held.Signatures) < len(r.Signatures) {
		c.roster.Store(&signedRoster{r, r.Encode()})
	}
	return len(r.Signatures)
}

// signedRoster is a voter list that a majority has signed, and its encoding.
type signedRoster struct {
	audit.Roster
	encoded []byte
}

// newerRoster is the voter list for a node that holds an older one, nil if there is none to hand out.
func (c *Coordinator) newerRoster(held uint64) []byte {
	if r := c.roster.Load(); r != nil && r.Version > held {
		return r.encoded
	}
	return nil
}
