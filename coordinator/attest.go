package coordinator

import (
	"context"
	"fmt"
	"maps"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
)

const (
	attestAgain  = time.Second
	proofTimeout = 5 * time.Second // how long a node that asks for a release waits for its proof
)

// releaseName names a version of a model.
type releaseName struct {
	model   string
	version uint64
}

// attested is a head that a majority of the voters has signed, and where under it the releases are recorded. It does not
// change.
type attested struct {
	audit.Head
	roster uint64                 // version of the voter list whose majority signed
	leaves map[releaseName]uint64 // places in the log
	next   chan struct{}          // closed when a later one is there
}

func newAttested() *attested { return &attested{next: make(chan struct{})} }

// attest gathers the voters' signatures over a head of the log whenever there is a release that no such head covers, or
// the voters have changed: a node takes a release only with the proof that it was committed.
func (c *Coordinator) attest(ctx context.Context) {
	releases, read, said := map[releaseName]uint64{}, uint64(0), ""
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		s := c.replica.State()
		for ; read < s.Log.Size(); read++ {
			if r, err := audit.Decode(s.Log.Record(read)); err == nil { // records of a later version are no releases
				if r, ok := r.(*audit.Released); ok {
					releases[releaseName{r.Model, r.Version}] = read
				}
			}
		}
		held := c.attested.Load()
		if len(releases) == 0 || len(held.leaves) == len(releases) && held.roster == s.RosterVersion() {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		h, err := c.signedHead(ctx, s, s.Majority())
		if err != nil {
			if ctx.Err() == nil && said != err.Error() {
				said = err.Error()
				c.deps.Log.Warn("releases are not proved to nodes yet", "error", err)
			}
			pause(ctx, attestAgain)
			continue
		}
		said = ""
		next := newAttested()
		next.Head, next.roster, next.leaves = h, s.RosterVersion(), maps.Clone(releases)
		c.attested.Store(next)
		close(held.next)
	}
}

// signedHead is the head of a state's log with the signatures of its voters, in order of names. It asks all at once and
// waits until enough have signed; fewer than a majority are an error.
func (c *Coordinator) signedHead(ctx context.Context, s *state.State, enough int) (audit.Head, error) {
	h := audit.Head{Cluster: s.Cluster, Size: s.Log.Size(), Root: s.Log.Root()}
	signers, err := c.askHeads(ctx, s, h, enough)
	if len(signers) < s.Majority() {
		return h, fmt.Errorf("%d of %d coordinators signed the head, a majority is %d: %w", len(signers), len(s.Coordinators), s.Majority(), err)
	}
	for _, v := range s.Coordinators {
		if sig, ok := signers[v.Name]; ok {
			h.Signatures = append(h.Signatures, audit.Signature{Signer: v.Name, Signature: sig})
		}
	}
	return h, nil
}

// proof proves that a release was committed. It waits for a majority to sign; nil if it does not in time.
func (c *Coordinator) proof(ctx context.Context, model string, version uint64) []byte {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	for {
		held := c.attested.Load()
		if leaf, ok := held.leaves[releaseName{model, version}]; ok {
			p, err := c.replica.State().Log.Prove(leaf, held.Head)
			if err != nil {
				c.deps.Log.Error("release not proved", "model", model, "version", version, "error", err)
				return nil
			}
			return p.Encode()
		}
		select {
		case <-held.next:
		case <-c.stopping:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
