package node

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/fedavg"
	choirv1 "choir.example/proto/choir/v1"
)

// A node outside its hours says so in its polls and does not work on a task that comes all the same; within them it does.
func TestNodeKeepsItsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		s := newShop().service()
		cred := p.coordinator("c1", s)
		var mu sync.Mutex
		rested, worked := map[int]bool{}, map[int]bool{}
		s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
			mu.Lock()
			defer mu.Unlock()
			hour := time.Now().Local().Hour()
			rested[hour], worked[hour] = rested[hour] || r.Resting, worked[hour] || !r.Resting
			return &choirv1.PollReply{ComeBackMs: 30_000}, nil
		}
		n := p.node(t.TempDir(), func(c *Config, _ *Deps) { c.Hours = "22-6" }, "c1")
		if err := n.store.SetSchema(toySchema(t)); err != nil {
			t.Fatal(err)
		}
		importCSV(t, n.store, Train, toyCSV(5))
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for hour := range 24 {
			in := hour >= 22 || hour < 6
			if worked[hour] != in || rested[hour] == in {
				t.Errorf("%d o'clock: it worked %v, rested %v", hour, worked[hour], rested[hour])
			}
		}
		time.Sleep(time.Until(time.Date(2030, 1, 1, 12, 0, 0, 0, time.Local)))
		task := p.statisticsTask(cred, "c1")
		_, err := n.payload(t.Context(), task, header("node-01"))
		wantError(t, err, "outside this node's hours, 22-6")
	})
}

// What a job wants and the node has not is declined, and the owner can see why.
func TestDeclinesAreVisible(t *testing.T) {
	p := newParty(t, "test")
	cred := p.coordinator("c1", newShop().service())
	n := p.node(t.TempDir(), nil, "c1")
	if err := n.store.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	importCSV(t, n.store, Train, toyCSV(5))
	task := p.statisticsTask(cred, "c1")
	task.Job.MinimumExamples = 6
	for i := range maxDeclined + 5 {
		task.Key.Attempt = uint32(i)
		if n.invited(t.Context(), task) {
			t.Fatal("the task was done")
		}
	}
	s, err := n.Status()
	if err != nil || len(s.Declined) != maxDeclined {
		t.Fatalf("%d declined, %v", len(s.Declined), err)
	}
	last := s.Declined[maxDeclined-1]
	if last.Attempt != maxDeclined+4 || last.Job != "job" || last.Reason != "job job wants at least 6 training examples, and this node has 5" || len(s.Sent) != 0 {
		t.Errorf("declined %+v, sent %v", last, s.Sent)
	}
	task.Job.MinimumExamples = 5
	if err := n.shop.work(t.Context(), task, func(*fedavg.Update) error { return nil }); err != nil {
		t.Errorf("with enough examples: %v", err)
	}
}

// Of several jobs the node does one task at a time, and tells each coordinator what it has finished with in all of them,
// so that none comes twice.
func TestJobsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		s := newShop().service()
		cred := p.coordinator("c1", s)
		var mu, books sync.Mutex
		uploads, finished := map[string]int{}, []*choirv1.RoundKey{}
		s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
			books.Lock()
			finished = r.Finished
			books.Unlock()
			for _, job := range []string{"a", "b", "c"} {
				done := false
				for _, k := range r.Finished {
					done = done || k.Job == job
				}
				if !done {
					task := p.statisticsTask(cred, "c1")
					task.Key.Job, task.Job.Name = job, job
					return &choirv1.PollReply{Task: task}, nil
				}
			}
			return hold(ctx, r)
		}
		s.upload = func(stream choirv1.Nodes_UploadServer) error {
			if !mu.TryLock() {
				t.Error("two uploads at once")
			}
			defer mu.Unlock()
			h, _, err := drain(stream)
			if err != nil {
				return err
			}
			books.Lock()
			uploads[h.Key.Job]++
			books.Unlock()
			time.Sleep(time.Second)
			receipt := receiptFor(header("node-01"), [32]byte(h.Update))
			receipt.Job = h.Key.Job
			return stream.Send(answerWith(signedReceipt(cred, "c1", receipt)))
		}
		n := p.node(t.TempDir(), nil, "c1")
		if err := n.store.SetSchema(toySchema(t)); err != nil {
			t.Fatal(err)
		}
		importCSV(t, n.store, Train, toyCSV(5))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		books.Lock()
		defer books.Unlock()
		if len(uploads) != 3 || uploads["a"]+uploads["b"]+uploads["c"] != 3 || len(finished) != 3 {
			t.Errorf("uploads %v, finished %v", uploads, finished)
		}
	})
}

func TestOnBattery(t *testing.T) {
	for name, c := range map[string]struct {
		supplies map[string]map[string]string
		want     bool
	}{
		"nothing there":       {nil, false},
		"mains only":          {map[string]map[string]string{"AC": {"type": "Mains", "online": "1"}}, false},
		"laptop on mains":     {map[string]map[string]string{"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery", "status": "Charging"}}, false},
		"laptop on battery":   {map[string]map[string]string{"AC": {"type": "Mains", "online": "0"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, true},
		"battery alone":       {map[string]map[string]string{"BAT0": {"type": "Battery", "status": "Discharging"}}, true},
		"full on usb":         {map[string]map[string]string{"usb": {"type": "USB", "online": "1"}, "BAT0": {"type": "Battery", "status": "Full"}}, false},
		"mouse's own battery": {map[string]map[string]string{"hid": {"type": "Battery", "status": "Discharging", "scope": "Device"}}, false},
	} {
		dir := t.TempDir()
		for supply, files := range c.supplies {
			if err := os.MkdirAll(filepath.Join(dir, supply), 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range files {
				write(t, filepath.Join(dir, supply, file), []byte(text+"\n"))
			}
		}
		if got := onBattery(dir); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
