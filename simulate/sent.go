package simulate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// sentUpdate is what a run says of an update that a node sends, a line of JSON in the file of sentLog.
type sentUpdate struct {
	Round     int    `json:"round"`
	Node      string `json:"node"`
	Bytes     int64  `json:"bytes"`     // of the payload
	Saturated int64  `json:"saturated"` // coordinates outside the grid's range
}

// sentLog remembers what nodes send until their round is taken in, once a node and round, however often it sends. A line
// stands in the file before the first byte of the update leaves: what counts is known, also after a break. Like what nodes
// spool in an experiment it waits for no disk.
type sentLog struct {
	mu     sync.Mutex // guards what follows
	file   *os.File   // nil: the run ends with its process
	rounds map[int]map[string]sentUpdate
	err    error // the first of writing
}

// openSentLog reads the lines of rounds after one, and goes on with them. Without a path nothing outlives the process.
func openSentLog(path string, after int) (*sentLog, error) {
	l := &sentLog{rounds: map[int]map[string]sentUpdate{}}
	if path == "" {
		return l, nil
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what was sent: %w", err)
	}
	whole := 0
	for line := range bytes.Lines(b) {
		var u sentUpdate
		if json.Unmarshal(line, &u) != nil || !bytes.HasSuffix(line, []byte("\n")) {
			break // what a break has cut off
		}
		whole += len(line)
		if u.Round > after {
			l.take(u)
		}
	}
	if l.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		err = l.file.Truncate(int64(whole))
	}
	if err != nil {
		return nil, fmt.Errorf("write what is sent: %w", err)
	}
	return l, nil
}

// take remembers an update, and reports whether it was not known.
func (l *sentLog) take(u sentUpdate) bool {
	if l.rounds[u.Round] == nil {
		l.rounds[u.Round] = map[string]sentUpdate{}
	}
	_, known := l.rounds[u.Round][u.Node]
	if !known {
		l.rounds[u.Round][u.Node] = u
	}
	return !known
}

// add notes an update that is about to be sent.
func (l *sentLog) add(u sentUpdate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.take(u) || l.file == nil {
		return
	}
	line, err := json.Marshal(u)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("write what is sent: %w", err)
	}
}

// nodes are those that have sent in a round, or are about to.
func (l *sentLog) nodes(round int) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]bool{}
	for node := range l.rounds[round] {
		all[node] = true
	}
	return all
}

// closed sums what was sent in a round that is over, and forgets it.
func (l *sentLog) closed(round, updates int) (sent, saturated int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, 0, l.err
	}
	all := l.rounds[round]
	delete(l.rounds, round)
	if len(all) != updates {
		return 0, 0, fmt.Errorf("of %d updates that count, what they took is known for %d, as after a power cut: %w", updates, len(all), ErrFederation)
	}
	for _, u := range all {
		sent, saturated = sent+u.Bytes, saturated+u.Saturated
	}
	return sent, saturated, nil
}

func (l *sentLog) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
