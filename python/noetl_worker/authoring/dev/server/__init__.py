"""The planes' routes: what is asked, what is answered."""
