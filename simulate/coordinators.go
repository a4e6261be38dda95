package simulate

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"choir.example/coordinator"
	"choir.example/privacy/seal"
)

// member is one coordinator that runs.
type member struct {
	remains
	c      *coordinator.Coordinator
	cancel context.CancelFunc
}

// remains are what is left of a coordinator when it is killed, beside its directory: nothing of its memory.
type remains struct {
	config coordinator.Config
	deps   coordinator.Deps
	done   chan error // what Run returned
}

// certificateLife is how long coordinators and people of a simulated federation are certified.
const certificateLife = 30 * 24 * time.Hour

// CoordinatorName and NodeName are the names of the i-th, from zero.
func CoordinatorName(i int) string { return fmt.Sprintf("c%d", i+1) }

// seat is what a coordinator is in the federation, whenever it is started: its name, its address, its keys.
type seat struct {
	Name, Address string // the address is empty until it is started first
	Key           []byte // seed
	Chain         [][]byte
	IssuerKey     []byte // seed
	Issuer        []byte // certificate
}

// newSeat makes a coordinator's keys and has the root certify them.
func (f *Federation) newSeat(name string) (*seat, error) {
	cred, err := f.certify(seal.RoleCoordinator, name)
	if err != nil {
		return nil, err
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer, err := f.authority.CertifyIssuer(name, key.Public().(ed25519.PublicKey), f.cfg.Now(), certificateLife)
	if err != nil {
		return nil, err
	}
	return &seat{Name: name, Key: cred.Key.Seed(), Chain: cred.Chain, IssuerKey: key.Seed(), Issuer: issuer}, nil
}

// startCoordinators opens all ports first, so that each coordinator knows where the others are.
func (f *Federation) startCoordinators() (err error) {
	var waiting []*member
	defer func() {
		for _, m := range waiting { // empty unless one could not be started
			err = errors.Join(err, m.deps.Listener.Close())
		}
	}()
	for _, s := range f.seats {
		m, err := f.prepare(s)
		if err != nil {
			return err
		}
		f.voters = append(f.voters, coordinator.Voter{Name: s.Name, Address: s.Address, Chain: s.Chain})
		waiting = append(waiting, m)
	}
	for len(waiting) > 0 {
		m := waiting[0]
		m.config.Voters = f.voters
		if err := f.run(m); err != nil {
			return err
		}
		waiting = waiting[1:]
	}
	return nil
}

// listen opens a coordinator's port: the one it had, if it had one.
func (f *Federation) listen(s *seat) (l net.Listener, err error) {
	if s.Address != "" {
		return f.cfg.Network.Relisten(s.Name, s.Address)
	}
	if l, err = f.cfg.Network.Listen(s.Name); err == nil {
		s.Address = l.Addr().String()
	}
	return l, err
}

// prepare opens a coordinator's port and lays out what it works with.
func (f *Federation) prepare(s *seat) (*member, error) {
	l, err := f.listen(s)
	if err != nil {
		return nil, err
	}
	config := coordinator.DefaultConfig()
	config.Name, config.Cluster, config.Dir, config.Address = s.Name, f.cfg.Cluster, filepath.Join(f.cfg.Dir, s.Name), s.Address
	if f.cfg.BatchUpdates > 0 {
		config.BatchUpdates = f.cfg.BatchUpdates
	}
	if f.cfg.Heartbeat > 0 {
		config.Heartbeat = f.cfg.Heartbeat
	}
	return &member{remains: remains{config: config, deps: coordinator.Deps{
		Log: f.cfg.Log.With("coordinator", s.Name), Listener: l, Dial: f.cfg.Network.Dialer(s.Name), Now: f.cfg.Now, Rand: rand.Reader,
		Root: f.root, Credential: &seal.Credential{Chain: s.Chain, Key: ed25519.NewKeyFromSeed(s.Key)},
		Issuer: &seal.Issuer{Certificate: s.Issuer, Key: ed25519.NewKeyFromSeed(s.IssuerKey)}, Observe: f.cfg.Coordinator,
		Algorithm: f.cfg.Algorithm, Available: f.cfg.Available, Trusted: f.cfg.Trusted,
	}}}, nil
}

// run opens a coordinator's directory and starts it.
func (f *Federation) run(m *member) (err error) {
	if m.c, err = coordinator.New(m.config, m.deps); err != nil {
		return err
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(f.ctx)
	m.done = make(chan error, 1)
	f.mu.Lock()
	f.members[m.config.Name] = m
	f.mu.Unlock()
	go func() {
		err := m.c.Run(ctx)
		if err != nil && f.runs(m) {
			f.unsound(err)
		}
		m.done <- err
	}()
	return nil
}

// runs reports whether nobody has told a coordinator to stop.
func (f *Federation) runs(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ctx.Err() == nil && f.members[m.config.Name] == m
}

// Kill makes a coordinator vanish as a power cut would; its directory stays. It may be called from an observer.
func (f *Federation) Kill(name string) {
	f.mu.Lock()
	m := f.members[name]
	if m == nil { // it is dead already
		f.mu.Unlock()
		return
	}
	delete(f.members, name)
	f.gone[name] = m.remains
	f.mu.Unlock()
	m.c.Kill()
	m.cancel() // its goroutines end; nobody can hear them
}

// Restart starts a coordinator again from the directory that a killed one left, on the address it had.
func (f *Federation) Restart(name string) error {
	f.mu.Lock()
	m, killed := f.gone[name]
	delete(f.gone, name)
	f.mu.Unlock()
	if !killed {
		return fmt.Errorf("restart: coordinator %s was not killed", name)
	}
	<-m.done // its memory is released
	l, err := f.cfg.Network.Relisten(name, m.config.Address)
	if err != nil {
		return err
	}
	m.deps.Listener = l
	if err := f.run(&member{remains: remains{config: m.config, deps: m.deps}}); err != nil {
		return errors.Join(err, l.Close())
	}
	return nil
}
