package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"choir.example/coordinator/state"
)

const (
	quoratePatience = 5 * time.Second // in which a majority must answer before a removal
	quorateAgain    = 200 * time.Millisecond
	repairAgain     = 30 * time.Second
)

// quorate sees that a majority of the voters that stay is there: without it nothing could be committed any more, not
// even the way back. One that is slow to answer, or has just come, is asked again for a while.
func (c *Coordinator) quorate(ctx context.Context, s *state.State, leaving string) error {
	stay := len(s.Coordinators) - 1
	within, cancel := context.WithTimeout(ctx, quoratePatience)
	defer cancel()
	for {
		alive := c.answering(within, s, leaving)
		if alive >= stay/2+1 {
			return nil
		}
		if pause(within, quorateAgain); within.Err() != nil {
			return fmt.Errorf("only %d of the %d coordinators that stay answer, a majority is %d; start those that are down, or remove them first",
				alive, stay, stay/2+1)
		}
	}
}

// answering counts the voters that answer, this one included, without the one that leaves.
func (c *Coordinator) answering(ctx context.Context, s *state.State, leaving string) (n int) {
	answers := c.askPeers(ctx, s)
	for _, v := range s.Coordinators {
		_, ok := answers[v.Name]
		if v.Name != leaving && (ok || v.Name == c.cfg.Name) {
			n++
		}
	}
	return n
}

// repair fetches the live blobs that are not here: what a newcomer lacks, or a disk has lost.
func (c *Coordinator) repair(ctx context.Context) {
	for ctx.Err() == nil {
		s := c.replica.State()
		for _, id := range liveBlobs(s) {
			if c.blobs.Has(id) || ctx.Err() != nil {
				continue
			}
			if _, err := c.blobs.Get(ctx, id); err != nil && ctx.Err() == nil {
				c.deps.Log.Debug("live blob is not here yet", "blob", id.String(), "error", err)
			}
		}
		within, cancel := context.WithTimeout(ctx, repairAgain)
		_, _ = c.replica.Wait(within, func(now *state.State) bool { return now.Voters != s.Voters || now.Cluster != s.Cluster })
		cancel()
	}
}

// evacuate sees to it that every live blob lies on a majority of the voters that stay when one goes. What this
// coordinator holds or can fetch it copies; if a blob cannot be brought there the removal is refused.
func (c *Coordinator) evacuate(ctx context.Context, s *state.State, leaving string) error {
	stay := slices.DeleteFunc(c.blobPeers(), func(p blobPeer) bool { return p.name == leaving })
	all := len(stay)
	if leaving != c.cfg.Name {
		all++ // this one stays, too
	}
	if all == 0 {
		return errors.New("it is the last one")
	}
	for _, id := range liveBlobs(s) {
		body, err := c.blobs.Get(ctx, id)
		if err != nil {
			return fmt.Errorf("live blob %v is not to be had: %w", id, err)
		}
		holders := 0
		if leaving != c.cfg.Name {
			if err := c.blobs.put(id, body); err != nil {
				return err
			}
			holders++
		}
		var reasons []error
		for _, p := range stay {
			if err := c.blobs.send(ctx, p, id, body); err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", p.name, err))
				continue
			}
			holders++
		}
		if holders < all/2+1 {
			return fmt.Errorf("live blob %v would be on %d of the %d coordinators that stay, fewer than a majority: %w",
				id, holders, all, errors.Join(reasons...))
		}
	}
	return nil
}

// liveBlobs are the blobs that something may still need: the current models and statistics of jobs, public sets,
// what open rounds name, and published variants.
func liveBlobs(s *state.State) (out []state.Digest) {
	seen := map[state.Digest]bool{{}: true}
	add := func(ids ...state.Digest) {
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	for _, j := range s.Jobs {
		add(j.Model, j.Statistics, j.Strategy)
		if spec, err := j.JobSpec(); err == nil && !j.Ended() {
			for _, id := range [][]byte{spec.Validation, spec.Public} {
				if len(id) == len(state.Digest{}) {
					add(state.Digest(id))
				}
			}
		}
		if r := j.Active(); r != nil {
			add(r.Model, r.Strategy)
			add(r.Candidates...)
			for _, b := range r.Batches {
				add(b.ID)
			}
		}
	}
	for _, rs := range s.Releases {
		for _, rel := range rs {
			for _, v := range rel.Variants {
				if v.Published {
					add(v.Blob)
				}
			}
		}
	}
	return out
}
