package node

import (
	"syscall"
	"testing"
)

// niceness is that of the thread that calls, as the kernel tells it: 20 less what getpriority returns.
func niceness(t *testing.T) int {
	t.Helper()
	p, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	return 20 - p
}

// Training waits behind predictions; nobody else's thread becomes nicer by it.
func TestTrainingIsInTheBackground(t *testing.T) {
	was := niceness(t)
	b := newBench(t, "node-01", 10, 4)
	during := was
	b.pause = func() { during = niceness(t) }
	b.do(b.task(nil))
	if want := max(was, backgroundNice); during != want {
		t.Errorf("niceness %d while training, want %d", during, want)
	}
	for range 100 {
		done := make(chan int)
		go func() { done <- niceness(t) }()
		if now := <-done; now != was {
			t.Fatalf("niceness %d afterwards, want %d", now, was)
		}
	}
}
