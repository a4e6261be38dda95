package coordinator

import (
	"testing"

	"choir.example/internal/leak"
)

// Most tests here wait, for elections, retries and time-outs, rather than compute: more of them run at once than there
// are processors. Replicas whose leader is to stay, or be missed within seconds, are tested before them, one by one. What a
// coordinator starts ends with it: after all tests no goroutine is left.
func TestMain(m *testing.M) { leak.Main(m, 8) }
