package coordinator

import "slices"

const (
	memoryBytes = 48 << 20 // of all blobs kept in memory
	memoryBlobs = 6        // a model, or the variants of a release
	memorySeen  = 64       // ids remembered
)

// blobMemory keeps the blobs that were asked for more than once: the model that a cohort fetches stays, the batches that
// are merged once do not. Its zero value is empty; it is not safe for concurrent use.
type blobMemory struct {
	seen [][32]byte // asked for once, oldest first
	kept []keptBlob // longest unused first
}

type keptBlob struct {
	id   [32]byte
	body []byte
}

func (m *blobMemory) get(id [32]byte) ([]byte, bool) {
	i := slices.IndexFunc(m.kept, func(k keptBlob) bool { return k.id == id })
	if i < 0 {
		return nil, false
	}
	k := m.kept[i]
	m.kept = append(slices.Delete(m.kept, i, i+1), k)
	return k.body, true
}

// add notes that a blob was read.
func (m *blobMemory) add(id [32]byte, body []byte) {
	i := slices.Index(m.seen, id)
	if i < 0 {
		if m.seen = append(m.seen, id); len(m.seen) > memorySeen {
			m.seen = slices.Delete(m.seen, 0, 1)
		}
		return
	}
	m.seen = slices.Delete(m.seen, i, i+1)
	m.keep(id, body)
}

// keep keeps a blob that is not kept.
func (m *blobMemory) keep(id [32]byte, body []byte) {
	if len(body) > memoryBytes {
		return
	}
	m.kept = append(m.kept, keptBlob{id, body})
	total := 0
	for _, k := range m.kept {
		total += len(k.body)
	}
	for total > memoryBytes || len(m.kept) > memoryBlobs {
		total -= len(m.kept[0].body)
		m.kept = slices.Delete(m.kept, 0, 1)
	}
}
