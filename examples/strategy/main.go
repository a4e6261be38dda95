// Command strategy runs an experiment with a strategy of its own.
package main

import (
	"context"
	"fmt"
	"log"
	"math"

	"choir.example/fedavg"
	"choir.example/simulate"
)

// careful is federated averaging whose server takes no step longer than Radius.
type careful struct {
	fedavg.FedAvg
	Radius float64 // L2 norm, in units of a parameter
}

// Server implements fedavg.Strategy. All else is as fedavg.FedAvg has it.
func (c careful) Server(r *fedavg.Round) error {
	sum := 0.0
	for _, d := range r.Delta() {
		sum += float64(d * d)
	}
	r.Move(min(1, c.Radius/math.Sqrt(sum)), r.Delta())
	return nil
}

func main() {
	quick, _ := simulate.BuiltinNamed("quick")
	quick.Own.Strategy = careful{Radius: 0.2}
	r, err := simulate.Run(context.Background(), quick.Experiment, simulate.RunConfig{Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("accuracy %.4f\n", r.Final.Accuracy)
}
