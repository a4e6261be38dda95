package state

import "slices"

// A round's updates are sealed to the epoch keys that were the newest when it opened. Older keys of a coordinator are
// known as long as a round that is not over names them; then the coordinator destroys the private half, and what was
// captured on the way cannot be opened by anybody.

// NamedKey is a coordinator's epoch key, with the certificate that vouches for it.
type NamedKey struct {
	Coordinator string
	Chain       [][]byte
	EpochKey
}

// epochs fixes the newest epoch of each coordinator that announced one.
func (s *State) epochs() map[string]uint64 {
	var out map[string]uint64
	for _, c := range s.Coordinators {
		if c.Epoch.Recipient != "" {
			out = put(out, c.Name, c.Epoch.Epoch)
		}
	}
	return out
}

// RoundKeys are the keys that the updates of a round which is not over are sealed to, in order of coordinators: those
// fixed at its opening, without those of coordinators removed since. A round that opened before any coordinator
// announced a key has the newest ones.
func (s *State) RoundKeys(r *Round) []NamedKey {
	named := r.Epochs
	if len(named) == 0 {
		named = s.epochs()
	}
	var out []NamedKey
	for _, c := range s.Coordinators {
		for _, k := range append(slices.Clone(c.Epochs), c.Epoch) {
			if epoch, ok := named[c.Name]; ok && k.Epoch == epoch {
				out = append(out, NamedKey{Coordinator: c.Name, Chain: s.Shown(c), EpochKey: k})
			}
		}
	}
	return out
}

// NeedsEpoch reports whether a coordinator must keep the private half of an epoch key: it is the newest announced, or a
// round that is not over names it. A key that is not announced yet is not needed by anybody.
func (s *State) NeedsEpoch(coordinator string, epoch uint64) bool {
	c, ok := s.Coordinator(coordinator)
	return ok && (c.Epoch.Epoch == epoch || s.named(coordinator, epoch))
}

// named reports whether a round that is not over names the epoch.
func (s *State) named(coordinator string, epoch uint64) bool {
	for _, j := range s.Jobs {
		r := j.Active()
		if r == nil {
			continue
		}
		if e, ok := r.Epochs[coordinator]; ok && e == epoch {
			return true
		}
	}
	return false
}

// forgetEpochs drops the older keys that no round names any more.
func (t *transition) forgetEpochs() {
	for i, c := range t.Coordinators {
		old := func(k EpochKey) bool { return !t.named(c.Name, k.Epoch) }
		if !slices.ContainsFunc(c.Epochs, old) {
			continue
		}
		t.Coordinators = slices.Clone(t.Coordinators)
		t.Coordinators[i].Epochs = slices.DeleteFunc(slices.Clone(c.Epochs), old)
		if len(t.Coordinators[i].Epochs) == 0 {
			t.Coordinators[i].Epochs = nil
		}
	}
}

// sealNoMoreTo takes a coordinator's key out of the rounds that are not over: one of the same name that joins later has
// other keys.
func (t *transition) sealNoMoreTo(coordinator string) {
	for name, old := range t.Jobs {
		r := old.Active()
		if r == nil || r.Epochs[coordinator] == 0 {
			continue
		}
		j := *old
		t.Jobs = put(t.Jobs, name, &j)
		edited := j.edit()
		edited.Epochs = without(r.Epochs, coordinator)
	}
}
