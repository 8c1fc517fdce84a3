"""What the simulated model says when nothing is scripted: rules over what was really sent."""
