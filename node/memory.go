package node

import (
	"sync"
	"time"

	"choir.example/model"
	"choir.example/model/data"
)

// How long and how many predictions can be answered with their true outcome. A row counts as one.
const (
	memoryRows = 100_000
	memoryLife = 24 * time.Hour
)

// prediction is what the server remembers of one request.
type prediction struct {
	id      [16]byte
	model   *model.Model
	version uint64
	rows    []data.Row // nil when the caller sent a tensor: then its inputs are not known
	count   int        // of rows
	at      time.Time
}

// memory remembers the latest predictions, in memory only: a restart forgets them.
type memory struct {
	mu    sync.Mutex // guards the fields below
	byID  map[[16]byte]*prediction
	queue []*prediction // oldest first, from head on
	head  int
	rows  int
}

func newMemory() *memory { return &memory{byID: map[[16]byte]*prediction{}} }

// remember adds a prediction and forgets what is too old or too many.
func (m *memory) remember(p *prediction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID[p.id] = p
	m.queue = append(m.queue, p)
	m.rows += p.count
	m.forget(p.at)
}

// forget drops the oldest; m.mu is held.
func (m *memory) forget(now time.Time) {
	for m.head < len(m.queue) && (m.rows > memoryRows || now.Sub(m.queue[m.head].at) > memoryLife) {
		old := m.queue[m.head]
		delete(m.byID, old.id)
		m.rows -= old.count
		m.queue[m.head] = nil
		m.head++
	}
	if m.head > len(m.queue)/2 {
		m.queue = append(m.queue[:0], m.queue[m.head:]...)
		m.head = 0
	}
}

// find returns a prediction, nil if it is not remembered.
func (m *memory) find(id [16]byte, now time.Time) *prediction {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(now)
	return m.byID[id]
}
