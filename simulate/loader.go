package simulate

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"choir.example/model/data"
)

// Loader reads data sets, each once: experiments that name the same one share its memory, since nobody writes to it. It
// may be used concurrently. The zero value is ready.
type Loader struct {
	// Schema reads the file that a data set of rows names. nil: it is JSON.
	Schema func(path string) (*data.Schema, error)

	mu    sync.Mutex // guards loads
	loads map[load]*loading
	order []load // the oldest first
}

// load is what is asked for.
type load struct {
	settings DataSettings
	seed     uint64 // 0 where it does not matter
}

// loading is a data set that is read once.
type loading struct {
	once sync.Once
	set  *Dataset
	err  error
}

// kept is how many data sets a loader keeps: a sweep seldom goes back and forth between more.
const kept = 4

// Load reads a data set, or returns the one that it read before. The seed divides what nobody else divided into parts to
// learn from and to test with, and makes up what is made up. The result is shared: read only.
func (l *Loader) Load(s DataSettings, seed uint64) (*Dataset, error) {
	entry, err := s.find()
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	key := load{settings: s}
	key.settings.Public = 0 // which is set aside afterwards
	if entry.drawn(s) {
		key.seed = seed
	}
	one := l.loading(key)
	one.once.Do(func() {
		if one.set, one.err = entry.read(l, s, seed); one.err == nil {
			one.err = one.set.check()
		}
	})
	if one.err != nil {
		return nil, fmt.Errorf("data: %s: %w", s.Name, one.err)
	}
	return one.set, nil
}

// loading is the place of a data set among those kept; the one that was asked for first makes room.
func (l *Loader) loading(key load) *loading {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.loads[key]; one != nil {
		return one
	}
	if l.loads == nil {
		l.loads = map[load]*loading{}
	}
	if len(l.order) == kept {
		delete(l.loads, l.order[0])
		l.order = l.order[1:]
	}
	l.loads[key], l.order = &loading{}, append(l.order, key)
	return l.loads[key]
}

// schema reads a schema's file.
func (l *Loader) schema(path string) (*data.Schema, error) {
	if l.Schema != nil {
		return l.Schema(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("schema: %s is no JSON", path)
	}
	s, err := data.ParseSchema(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
