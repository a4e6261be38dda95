package simulate

import (
	"testing"

	"choir.example/internal/leak"
)

// Whole federations wait, for elections and rounds, more than they compute: some run at once. Tests that measure time or memory
// run before them, one by one. What a federation starts ends with it: after all tests no goroutine is left.
func TestMain(m *testing.M) { leak.Main(m, 4) }
