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

// prediction is one request as the server remembers it.
type prediction struct {
	id    [16]byte
	model *model.Model
	rows  []data.Row // nil when the caller sent a tensor: then its inputs are not known
	count int        // of rows
	at    time.Time
}

// memory remembers the latest predictions, in memory only: a restart forgets them. What it keeps for each holds no
// pointer, so that the garbage collector, which runs often while predictions are answered, need not walk through it.
type memory struct {
	mu     sync.Mutex // guards the fields below
	order  map[[16]byte]uint64
	ring   []remembered // prediction n lies at n modulo its length
	first  uint64       // number of the oldest
	next   uint64       // number of the next one to come
	rows   int
	models []knownModel // a free place has no model
	blocks []*block     // values of rows, oldest first
	gone   uint32       // blocks that were dropped before the first
}

// knownModel is a model, and how many of its predictions are remembered.
type knownModel struct {
	model *model.Model
	live  int
}

// remembered is what is kept of a prediction.
type remembered struct {
	id     [16]byte
	at     int64  // Unix, in nanoseconds
	model  uint32 // place in models
	count  int32  // of rows
	block  uint32 // where its values are, one row after the other, counted from the first block there ever was
	offset uint32
	width  int32 // values a row; 0: the inputs are not known
}

// block is a piece of memory for values; it goes when the last prediction in it is forgotten.
type block struct {
	values []float64
	live   int
}

const blockValues = 1 << 14

func newMemory() *memory {
	return &memory{order: map[[16]byte]uint64{}, ring: make([]remembered, 64)}
}

// remember adds a prediction and forgets what is too old or too many. It keeps nothing of p but its model.
func (m *memory) remember(p *prediction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := remembered{id: p.id, at: p.at.UnixNano(), model: m.known(p.model), count: int32(p.count)}
	if len(p.rows) > 0 {
		r.width = int32(len(p.rows[0]))
		r.block, r.offset = m.keep(p.rows)
	}
	if m.next-m.first == uint64(len(m.ring)) {
		m.grow()
	}
	m.ring[m.next%uint64(len(m.ring))] = r
	m.order[p.id] = m.next
	m.next++
	m.rows += p.count
	m.forget(p.at)
}

// known is the place of a model in models, where one more of its predictions is counted.
func (m *memory) known(of *model.Model) uint32 {
	free := len(m.models)
	for i, k := range m.models {
		if k.model == of {
			m.models[i].live++
			return uint32(i)
		}
		if k.model == nil {
			free = i
		}
	}
	if free == len(m.models) {
		m.models = append(m.models, knownModel{})
	}
	m.models[free] = knownModel{of, 1}
	return uint32(free)
}

// keep copies rows to the newest block, or to a new one.
func (m *memory) keep(rows []data.Row) (number, offset uint32) {
	need := len(rows) * len(rows[0])
	last := len(m.blocks) - 1
	if last < 0 || cap(m.blocks[last].values)-len(m.blocks[last].values) < need {
		m.blocks = append(m.blocks, &block{values: make([]float64, 0, max(blockValues, need))})
		last++
	}
	b := m.blocks[last]
	offset = uint32(len(b.values))
	for _, row := range rows {
		b.values = append(b.values, row...)
	}
	b.live++
	return m.gone + uint32(last), offset
}

// grow doubles the ring.
func (m *memory) grow() {
	ring := make([]remembered, 2*len(m.ring))
	for n := m.first; n < m.next; n++ {
		ring[n%uint64(len(ring))] = m.ring[n%uint64(len(m.ring))]
	}
	m.ring = ring
}

// forget drops the oldest; m.mu is held.
func (m *memory) forget(now time.Time) {
	for m.first < m.next {
		r := &m.ring[m.first%uint64(len(m.ring))]
		if m.rows <= memoryRows && now.UnixNano()-r.at <= int64(memoryLife) {
			return
		}
		m.first++
		m.drop(r)
	}
}

// drop forgets one prediction.
func (m *memory) drop(r *remembered) {
	delete(m.order, r.id)
	m.rows -= int(r.count)
	if k := &m.models[r.model]; k.live == 1 {
		*k = knownModel{}
	} else {
		k.live--
	}
	if r.width == 0 {
		return
	}
	m.blocks[r.block-m.gone].live--
	for len(m.blocks) > 1 && m.blocks[0].live == 0 { // the last one is being filled
		m.blocks, m.gone = m.blocks[1:], m.gone+1
	}
}

// find returns a prediction, nil if it is not remembered.
func (m *memory) find(id [16]byte, now time.Time) *prediction {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(now)
	n, ok := m.order[id]
	if !ok {
		return nil
	}
	r := m.ring[n%uint64(len(m.ring))]
	p := &prediction{id: id, model: m.models[r.model].model, count: int(r.count), at: time.Unix(0, r.at)}
	if r.width == 0 {
		return p
	}
	values := m.blocks[r.block-m.gone].values[r.offset:]
	for i := range p.count {
		p.rows = append(p.rows, data.Row(values[i*int(r.width):(i+1)*int(r.width)]))
	}
	return p
}
