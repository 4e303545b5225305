"""What every suite shares: rows and where they are kept, clocks, processes of their own, the page."""
