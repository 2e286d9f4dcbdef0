"""What reports and results state, compared with the files beside them and with itself: whoever writes a number can claim any."""
